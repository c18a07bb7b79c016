"""What belongs to the whole process, and so to one thread at a time; and the processes that it starts, which end with it."""
