"""`lee explore` in a process of its own."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lee
from lee.explorer import serve


@contextmanager
def explored(folder: Path, *options: str) -> Iterator[str]:
    """The address that the command prints; afterwards it is ended, and has to have ended well and told no deprecation."""
    with socket.socket() as probe:
        probe.bind((serve.ADDRESS, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "lee", "explore", "--port", str(port), "--no-browser", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(lee.__file__).parents[1])}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as run,
    ):
        assert run.stdout is not None
        try:
            line = run.stdout.readline()
            form = rf"http://127\.0\.0\.1:{port}/\?token=[0-9a-f]{{48}}  \(Ctrl-C stops it\)\n"
            assert re.fullmatch(form, line), (folder / "log").read_text()
            yield line.split()[0]
        finally:
            run.terminate()
        assert run.wait(30) == 0
    assert "Deprecat" not in (folder / "log").read_text()
