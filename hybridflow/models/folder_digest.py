"""Digests of a model folder's files, cheap enough to be compared between machines before anything is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

READ = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # files that a model and its tokenizer are read from
END_BYTES = 1 << 20  # of both ends of a file: beside its size and its header, the weights that were written last


def file_digests(folder: str | Path) -> dict[str, str]:
    """Return by name a digest of each file: of its size and its ends. A folder that is not there has none.

    Files of other contents between the ends are not told apart: to read all of a model on every machine would take as
    long as to load it.
    """
    files = sorted({file for pattern in READ for file in Path(folder).glob(pattern) if file.is_file()})
    return {file.name: _digest(file) for file in files}


def _digest(file: Path) -> str:
    try:
        size = file.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with file.open("rb") as stream:
            digest.update(stream.read(END_BYTES))
            stream.seek(max(0, size - END_BYTES))
            digest.update(stream.read(END_BYTES))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return digest.hexdigest()
