"""Files of rows, any row of which is read at once, whatever came before; never all of them are in memory.

A file of JSON lines is read by an index of where its lines begin, an Arrow file through a memory map. Everything else
is unpacked into one of the two first (`unpacked_files`).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hybridflow.json_file import refuse_pointer
from hybridflow.tasks.reading_progress import ReadingProgress
from hybridflow.tasks.strict_json import RowError, parse_row

BLOCK = 8 << 20  # bytes that are searched for the ends of lines at a time
BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_NEWLINE = 10
_SPACES = (9, 10, 13, 32)


class RowFile(Protocol):
    """Rows of one file.

    Attributes:
        left_out: columns that rows do not have, as JSON has no word for their values.
    """

    left_out: tuple[str, ...]

    def __len__(self) -> int: ...

    def row(self, number: int) -> dict[str, Any]:
        """Read a row, 0 <= number < len. Raises RowError if it cannot be read."""
        ...

    def place(self, number: int) -> str:
        """Name a row: the file, and its line or number in it."""
        ...


class FileState(NamedTuple):
    """State of a file, by which a change is seen."""

    size: int
    modified: int

    @classmethod
    def of(cls, file: int | Path) -> FileState:
        """Look at a file, or at one that is open. Raises OSError."""
        status = os.stat(file)
        return cls(status.st_size, status.st_mtime_ns)


class JsonLines:
    """Rows of a file of JSON lines. Blank lines are none; a BOM at the start and CR before LF are read over.

    Args:
        file: where the lines are.
        name: what messages call it, if it stands for another file.
        unit: what messages call a line of it.

    Raises ValueError naming the file if it cannot be read, is empty or is no text that could be UTF-8.
    """

    left_out: tuple[str, ...] = ()

    def __init__(self, file: Path, name: str = "", unit: str = ":{}") -> None:
        self.file = file
        self._name = name or str(file)
        self._unit = unit
        try:
            with file.open("rb", buffering=0) as opened:
                self._state = FileState.of(opened.fileno())
                begin = self._begin(os.pread(opened.fileno(), 64, 0))
                newlines, doubtful = self._newlines(opened.fileno())
                size = self._state.size
                # The last line may have no end, which is not the same as a line that was cut short.
                self._ends = newlines if newlines[-1:].tolist() == [size - 1] else np.append(newlines, size)
                self._starts = np.append(begin, newlines + 1)[: len(self._ends)]
                blank = self._blank(opened.fileno(), doubtful)
        except OSError as error:
            raise ValueError(f"{self._name}: {error.strerror}") from error
        self._lines: np.ndarray | None = None
        if len(blank):
            self._lines = np.delete(np.arange(len(self._starts)), blank)
            self._starts = self._starts[self._lines]
            self._ends = self._ends[self._lines]

    def __len__(self) -> int:
        return len(self._starts)

    def row(self, number: int) -> dict[str, Any]:
        start = int(self._starts[number])
        end = int(self._ends[number])
        try:
            return parse_row(self._read(start, end))
        except RowError as fault:
            if end == self._state.size and fault.reason == "not JSON":
                raise RowError(f"{fault}; the file ends within this row: it was cut short", "cut short") from fault
            raise

    def place(self, number: int) -> str:
        line = number if self._lines is None else int(self._lines[number])
        return self._name + self._unit.format(line + 1)

    def _read(self, start: int, end: int) -> bytes:
        try:
            with self.file.open("rb", buffering=0) as opened:
                state = FileState.of(opened.fileno())
                data = os.pread(opened.fileno(), end - start, start)
        except OSError as error:
            raise RowError(f"the file cannot be read any more: {error.strerror}", "the file changed") from error
        if state != self._state or len(data) < end - start:
            raise RowError("the file has changed since this run began to read it; start again", "the file changed")
        return data

    def _begin(self, head: bytes) -> int:
        """Return where the text begins."""
        if not self._state.size:
            raise ValueError(f"{self._name} is empty (0 bytes); rows were expected")
        refuse_pointer(Path(self._name), head)
        if head.startswith(UTF_16):
            raise ValueError(f"{self._name} is UTF-16; UTF-8 was expected: iconv -f UTF-16 -t UTF-8 writes it so")
        return len(BOM) if head.startswith(BOM) else 0

    def _newlines(self, descriptor: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the ends of lines, and the numbers of lines that begin with white space."""
        size = self._state.size
        progress = ReadingProgress(f"finding the rows of {self._name}", size)
        found = [np.zeros(0, dtype=np.int64)]
        doubtful = [np.zeros(1, dtype=np.int64)]  # the first line may
        lines = 1
        for start in range(0, size, BLOCK):
            block = np.frombuffer(os.pread(descriptor, BLOCK, start), dtype=np.uint8)
            ends = np.flatnonzero(block == _NEWLINE)
            following = np.append(block, _NEWLINE)[ends + 1]  # of the last byte nobody knows yet
            found.append(ends + start)
            doubtful.append(np.flatnonzero(np.isin(following, _SPACES)) + lines)
            lines += len(ends)
            progress.at(start)
        return np.concatenate(found), np.concatenate(doubtful)

    def _blank(self, descriptor: int, doubtful: np.ndarray) -> np.ndarray:
        """Return which of these lines have nothing but white space, [n] numbers."""
        blank = []
        for line in doubtful[doubtful < len(self._starts)].tolist():
            start = int(self._starts[line])
            if not os.pread(descriptor, int(self._ends[line]) - start, start).strip():
                blank.append(line)
        return np.array(blank, dtype=np.int64)


class Rows:
    """Rows of several files, one after the other."""

    def __init__(self, files: Sequence[RowFile]) -> None:
        self.files = files
        self._starts = [0, *np.cumsum([len(file) for file in files]).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        """Read a row. Raises RowError if it cannot be read."""
        file, within = self._locate(number)
        return file.row(within)

    def place(self, number: int) -> str:
        """Name a row: its file, and its line or number in it."""
        file, within = self._locate(number)
        return file.place(within)

    def _locate(self, number: int) -> tuple[RowFile, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"no row {number}; there are {len(self)}")
        file = bisect_right(self._starts, number) - 1
        return self.files[file], number - self._starts[file]


def each(rows: Rows) -> Iterator[int]:
    """Yield the number of every row; of many, say how far it is."""
    progress = ReadingProgress("reading rows", len(rows))
    for number in range(len(rows)):
        if not number % 1024:
            progress.at(number)
        yield number
