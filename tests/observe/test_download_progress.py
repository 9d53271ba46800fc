"""What is said of a download while one waits for it."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from hybridflow.observe import terminal
from hybridflow.observe.download_progress import progress_told


def test_what_has_come_is_told_while_the_client_is_held_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/old").write_bytes(b"0" * 10**6)
    told = Event()
    write = terminal._write

    def heard(text: str, stream: object, end: str = "\n") -> None:
        write(text, stream, end)  # type: ignore[arg-type]
        if "3 MB" in text:
            told.set()

    monkeypatch.setattr(terminal, "_write", heard)
    with progress_told("downloading a/b\x1b", tmp_path, every_s=0.01), terminal.tamed():
        (tmp_path / "blobs/new.incomplete").write_bytes(b"0" * 3 * 10**6)
        (tmp_path / "snapshot").symlink_to(tmp_path / "blobs/old")
        assert told.wait(10)
    said = capsys.readouterr().err
    assert "downloading a/b\\x1b: 3 MB so far\n" in said
    with progress_told("downloading", tmp_path):
        pass
    assert capsys.readouterr().err == "", "what is quick is not spoken of"
