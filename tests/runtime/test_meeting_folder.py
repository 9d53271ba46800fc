"""Folders by which ranks meet: their owner's alone, and swept once it is gone."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.runtime import meeting_folder

OWNER = (
    "import time\nfrom hybridflow.runtime import meeting_folder\nprint(meeting_folder.make(), flush=True)\n"
    "time.sleep(60)"
)


def test_the_folders_of_the_dead_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting_folder.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "hybridflow-meeting-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        theirs = Path(owner.stdout.readline().decode().strip())
        (theirs / "store").write_text("x")
        ours = meeting_folder.make()
        assert stat.S_IMODE(ours.stat().st_mode) == 0o700
        assert theirs.is_dir() and theirs.parent == tmp_path, "its owner is alive"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    meeting_folder.sweep(tmp_path)
    assert not theirs.exists() and ours.exists()
