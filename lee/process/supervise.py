"""Run a command, and end it and its process group when whoever started this script ends: then standard input is closed.

A script of its own, which imports nothing of this package: it is to start at once and to be small.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType

PATIENCE = 5.0  # seconds between the request to end and the end
_PR_SET_PDEATHSIG = 1


class _Command:
    """The command, which may not have been started yet when it is to end."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ending = False

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        if self.process is not None and hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self.process.pid, number)
        elif self.process is not None:
            self.process.kill()

    def end(self, *_: int | FrameType | None) -> None:
        """Ask it to end, and end it if it does not."""
        self.ending = True
        self.signal(signal.SIGTERM)
        killer = threading.Timer(PATIENCE, self.signal, (getattr(signal, "SIGKILL", signal.SIGTERM),))
        killer.daemon = True
        killer.start()

    def watch(self) -> None:
        """Wait until standard input is closed."""
        with suppress(OSError, ValueError):
            sys.stdin.buffer.read()
        self.end()


def main(command: list[str]) -> None:
    """Run a command; this process ends as the command did."""
    running = _Command()
    signal.signal(signal.SIGTERM, running.end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = {"preexec_fn": _die_with(os.getpid())} if sys.platform.startswith("linux") else {}
    running.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)  # type: ignore[call-overload]
    if running.ending:
        running.end()
    threading.Thread(target=running.watch, daemon=True).start()
    code = running.process.wait()
    running.signal(getattr(signal, "SIGKILL", signal.SIGTERM))  # what it has left behind
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def _die_with(parent: int) -> object:
    """Let the command be killed if this process is."""
    import ctypes

    library = ctypes.CDLL(None)

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


if __name__ == "__main__":
    main(sys.argv[1:])
