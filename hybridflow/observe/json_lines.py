"""Lines of JSON in files that grow, read at once or as they come. What is no object, or half of one, is left out."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

ALIKE_BYTES = 256  # before the place that a file was read to, by which it is known again

Record = dict[str, Any]
"""Object of a line or a file. A metric that was not finite is None there; edited ones may be anything."""


class FollowedLines:
    """JSON objects of a file that grows line by line, read as they come. Half a line waits for its other half.

    Attributes:
        anew: whether the file, when it was last read, was another one than before, or cut back: it was read from its
            begin then.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._place = 0
        self._before = b""  # what stands before the place
        self.anew = False

    def read(self) -> list[Record]:
        """Return what has come since the last time."""
        data = bytes_of(self._file, start=self._place - len(self._before))
        self.anew = not data.startswith(self._before)
        if self.anew:
            data = bytes_of(self._file)
            self._place = 0
            self._before = b""
        new = data[len(self._before) : data.rfind(b"\n") + 1]
        self._before = (self._before + new)[-ALIKE_BYTES:]
        self._place += len(new)
        return [found for found in map(object_of, new.splitlines()) if found is not None]


def bytes_of(file: Path, most: int | None = None, start: int = 0) -> bytes:
    """Return what a file has from a place on, or its last bytes; b"": there is none, or a new run has just moved it.

    What has its name and is no file is not opened: of a pipe that may never end.
    """
    with suppress(OSError):
        if file.is_file():
            with file.open("rb") as opened:
                opened.seek(start if most is None else max(0, file.stat().st_size - most))
                return opened.read()
    return b""


def read_lines(file: Path) -> list[Record]:
    """Read the objects of a file; [] if there is none. What is no UTF-8 in them is replaced."""
    text = ""
    with suppress(FileNotFoundError):  # a new run of the name may have moved it just now
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return [found for found in map(object_of, text.split("\n")) if found is not None]


def object_of(line: bytes | str) -> Record | None:
    """Return the object that a line is; None: it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
