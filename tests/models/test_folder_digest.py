"""Digests of model folders: what differs between two copies, by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.models import folder_digest
from hybridflow.models.folder_digest import file_digests

FILES = {"config.json": b"{}", "model.safetensors": b"header" + bytes(100) + b"end", "README.md": b"not read"}


def write(folder: Path, **changed: bytes) -> Path:
    folder.mkdir()
    for name, content in (FILES | {name.replace("_", "."): content for name, content in changed.items()}).items():
        (folder / name).write_bytes(content)
    return folder


def test_copies_are_alike_and_what_is_not_read_does_not_count(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b", README_md=b"other")
    assert file_digests(first) == file_digests(second)
    assert file_digests(first).keys() == {"config.json", "model.safetensors"}
    assert file_digests(tmp_path / "none") == {}


@pytest.mark.parametrize("content", [b"Header" + bytes(100) + b"end", b"header" + bytes(100) + b"End", b"header"])
def test_other_weights_are_told_apart(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_digest, "END_BYTES", 8)
    first, second = file_digests(write(tmp_path / "a")), file_digests(write(tmp_path / "b", model_safetensors=content))
    assert [name for name in first if first[name] != second[name]] == ["model.safetensors"]
