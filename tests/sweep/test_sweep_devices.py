"""Locks on GPUs lie in a folder of the user's own, where no link of somebody else leads elsewhere."""

import tempfile
from pathlib import Path

import pytest

from lee.errors import InputError
from lee.sweep import devices


def test_a_lock_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = devices._private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert devices._private_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(InputError, match="only you can write to"):
        devices._private_folder()
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(InputError, match="only you can write to"):
        devices._taken(0)
    assert not list(elsewhere.iterdir())
