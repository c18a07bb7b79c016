"""Processes that this one starts: they end with it, however it ends, and none is started after they were stopped."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lee.errors import LeeError

_SUPERVISE = Path(__file__).with_name("supervise.py")


class Stopped(LeeError):
    """A process was to be started after :meth:`Children.stop`."""


class Children:
    """Processes started from any thread; each is in a session of its own, so that Ctrl-C in a terminal reaches this one alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    @contextmanager
    def start(self, command: Sequence[str], **options: Any) -> "Iterator[subprocess.Popen[str]]":
        """Start a process and wait for its end; if an exception comes before, end it and all that it has started.

        Options are as for `subprocess.Popen`, but for `stdin`: by that the process is watched. After :meth:`stop` it raises
        :class:`Stopped`.
        """
        with self._lock:
            if self._ended:
                raise Stopped("Nothing is started any more.")
            watched = [sys.executable, str(_SUPERVISE), *command]
            process = subprocess.Popen(watched, stdin=subprocess.PIPE, text=True, **options)
            self._running.add(process)
        try:
            yield process
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            self._running.discard(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def stop(self) -> None:
        """End all that run, and start nothing more."""
        with self._lock:
            self._ended = True
        for process in list(self._running):
            process.terminate()
