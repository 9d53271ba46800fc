"""Files that grow line by line: a disk that takes no more leaves none of them with half a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import BinaryIO

from hybridflow.errors import counted
from hybridflow.observe.disk_errors import DiskError, writing


@contextmanager
def appending(file: Path) -> Iterator[BinaryIO]:
    """Open a file to write at its end. If that fails, it is as long as it was; raises DiskError if by the disk."""
    size = size_of(file)
    try:
        with writing(file), file.open("ab") as stream:
            yield stream
    except BaseException:
        with suppress(OSError):  # it may not have been made, or be no file
            os.truncate(file, size)
        raise


def size_of(file: Path) -> int:
    """Return the bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


class LineFile:
    """A file to which lines are added, by any thread.

    One that the disk takes no more of raises DiskError; or, once `wait_for_room` was called, lines wait in memory, in
    their order, until there is room again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._say: Callable[[str], None] | None = None
        self._waiting = b""
        self._told = False  # that lines wait
        self._lock = RLock()

    def wait_for_room(self, say: Callable[[str], None]) -> None:
        """From now on lines wait for room. `say`: what is told of it."""
        self._say = say

    def add(self, line: str) -> None:
        """Add a line. Raises DiskError if it finds no room, unless it waits for it."""
        with self._lock:
            self._waiting += f"{line}\n".encode()
            try:
                self.write_waiting()
            except DiskError as error:
                if self._say is None:
                    self._waiting = b""
                    raise
                if not self._told:
                    self._told = True
                    self._say(f"warning: {error}: lines of it wait in memory for room")

    def write_waiting(self) -> None:
        """Write what waits. Raises DiskError if it still finds no room."""
        with self._lock:
            if not self._waiting:
                return
            with appending(self.path) as stream:
                stream.write(self._waiting)
            lines, self._waiting = self._lines, b""
            if self._told and self._say is not None:
                self._say(f"there is room again for {self.path}: {counted(lines, 'line')} had waited")
            self._told = False

    def close(self) -> None:
        """Write what waits, or tell that it is lost."""
        try:
            self.write_waiting()
        except DiskError as error:
            if self._say is not None:
                self._say(f"warning: {error}: {counted(self._lines, 'line')} of it waited for room in vain")

    @property
    def size(self) -> int:
        """Bytes, with those of lines that wait."""
        return size_of(self.path) + len(self._waiting)

    def truncate(self, size: int) -> None:
        """Take off what is beyond a size that it had, of lines that wait first."""
        with self._lock:
            written = size_of(self.path)
            self._waiting = self._waiting[: max(0, size - written)]
            if size < written:
                with writing(self.path):
                    os.truncate(self.path, size)

    @property
    def _lines(self) -> int:
        return self._waiting.count(b"\n")
