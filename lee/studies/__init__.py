"""The studies of the book, a module for each: they read tables that `lee sweep` has made, and compare."""
