"""Files of which any row can be read at once, made of files that can only be read from their beginning.

A compressed file, a JSON array and a Parquet file are unpacked once, into `hybridflow/rows` of the user's cache folder
(XDG_CACHE_HOME, else ~/.cache), where later runs find them. To read a row in the middle of a stream of gzip all before
it would have to be unpacked each time, and of Parquet its whole row group; an order of training asks for rows all over.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO

from hybridflow.tasks.reading_progress import ReadingProgress

CHUNK = 1 << 20
TOKEN = 64  # characters, more than any of JSON's has but numbers and texts
FORM = 1  # of what is written; a change of it unpacks anew
_ARRAY_SPACES = " \t\r\n"

Write = Callable[[Path, Path], None]
"""Writes what is in the first file to the second. Raises ValueError naming the first if that cannot be."""


def unpacked(file: Path, ending: str, write: Write) -> Path:
    """Return the unpacked file, and write it if it is not there or the original has changed.

    Raises ValueError naming the file if it cannot be read, or the folder if nothing can be written there.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    folder = cache_folder()
    known = f"{FORM} {file.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    target = folder / f"{file.name}-{blake2b(known.encode(), digest_size=8).hexdigest()}{ending}"
    if target.is_file():
        return target
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(file, part)
        part.replace(target)
    except OSError as error:
        if error.filename == str(file):
            raise ValueError(f"{file}: {error.strerror}") from error
        raise ValueError(
            f"{file} is unpacked into {folder}, which failed: {error.strerror or error}; set XDG_CACHE_HOME to a "
            "folder with room"
        ) from error
    finally:
        with suppress(OSError):  # which the error above has told already
            part.unlink()
    return target


def cache_folder() -> Path:
    """Return the folder of unpacked files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybridflow" / "rows"


def unpack_gzip(file: Path, target: Path) -> None:
    """Unpack a .gz file. Raises ValueError if it is none, or was cut short."""
    try:
        with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) as packed:
            _copy(iter(lambda: packed.read(CHUNK), b""), target, file, raw)
    except EOFError as error:
        raise ValueError(f"{file} ends too early: it was cut short; make or fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file} is no gzip file: {error}") from error


def unpack_zstd(file: Path, target: Path) -> None:
    """Unpack a .zst file. Raises as `unpack_gzip`."""
    import zstandard

    def chunks(raw: IO[bytes]) -> Iterator[bytes]:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        begun = False
        while data := raw.read(CHUNK):
            while data:
                if decoder.eof:  # frames may follow each other
                    decoder = zstandard.ZstdDecompressor().decompressobj()
                yield decoder.decompress(data)
                begun = True
                data = decoder.unused_data
        if begun and not decoder.eof:
            raise ValueError(f"{file} ends too early: it was cut short; make or fetch it again")

    try:
        with file.open("rb") as raw:
            _copy(chunks(raw), target, file, raw)
    except zstandard.ZstdError as error:
        raise ValueError(f"{file} is no zstd file: {error}") from error


def _copy(chunks: Iterator[bytes], target: Path, file: Path, raw: IO[bytes]) -> None:
    progress = ReadingProgress(f"unpacking {file}", file.stat().st_size)
    with target.open("wb") as out:
        for chunk in chunks:
            out.write(chunk)
            progress.at(raw.tell())


def is_array(file: Path) -> bool:
    """Tell whether a file of JSON is one array, not an object a line. Raises OSError."""
    with file.open("rb") as opened:
        head = opened.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"[")


def array_to_lines(name: str) -> Write:
    """Return what writes each element of a JSON array to a line of its own; `name`: what messages call the file."""

    def write(file: Path, target: Path) -> None:
        progress = ReadingProgress(f"unpacking {name}", file.stat().st_size)
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened, target.open("wb") as out:
                for element in _elements(_Window(opened, name)):
                    # JSON has line ends between its tokens only: in a text they are escaped.
                    out.write(element.replace("\n", " ").replace("\r", " ").encode() + b"\n")
                    progress.at(out.tell())
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is not UTF-8 ({error.reason})") from error

    return write


def _elements(window: _Window) -> Iterator[str]:
    """Yield the text of each element of an array, with no more of the file in memory than one of them takes."""
    window.peek()
    window.at += 1  # the bracket
    number = 0
    while (mark := window.peek()) != "]":
        if number:
            if mark != ",":
                raise window.fault(number, "a comma or the end of the array was expected after it")
            window.at += 1
            window.peek()
        number += 1
        yield window.element(number)
    window.at += 1
    if window.peek(end=True):
        raise ValueError(f"{window.name} has more after its array; one array was expected, or an object a line")


class _Window:
    """Part of a text that is being read."""

    def __init__(self, opened: IO[str], name: str) -> None:
        self.name = name
        self.at = 0
        self._opened = opened
        self._text = ""
        self._decoder = JSONDecoder()

    def peek(self, *, end: bool = False) -> str:
        """Go on to the next character that is no space and return it; `end`: "" if there is none, else an error."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in _ARRAY_SPACES:
                    return self._text[self.at]
                self.at += 1
            if not self._grow():
                if end:
                    return ""
                raise ValueError(f"{self.name} ends within its array: it was cut short")

    def element(self, number: int) -> str:
        """Return the text of the value that begins here, and go on after it."""
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self.at)
            except JSONDecodeError as error:
                # What is wrong may only be that the rest is not read yet. Of a text the error is where it begins.
                known = len(self._text) - error.pos > TOKEN and not error.msg.startswith("Unterminated string")
                if known:
                    raise self.fault(number, error.msg) from error
                at_end = error.msg.startswith("Unterminated string") or error.pos >= len(self._text.rstrip())
                if not self._grow():
                    cut = "; the file ends within it: it was cut short" if at_end else ""
                    raise self.fault(number, f"{error.msg}{cut}") from error
                continue
            except RecursionError as error:
                raise self.fault(number, "too many brackets") from error
            if end < len(self._text) or not self._grow():  # at the end of what is read a number may go on
                element = self._text[self.at : end]
                self.at = end
                return element

    def fault(self, number: int, what: str) -> ValueError:
        """Describe what is wrong with an element."""
        return ValueError(f"{self.name}: element {number} of its array: not JSON: {what}")

    def _grow(self) -> bool:
        """Read more. As much as there is already: a long value is then tried a few times, not for every chunk."""
        more = self._opened.read(max(CHUNK, len(self._text) - self.at))
        self._text = self._text[self.at :] + more
        self.at = 0
        return bool(more)
