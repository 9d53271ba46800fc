"""The one reading of a JSON file that others may have written, or a disk may have cut short."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from hybridflow.errors import shown

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


def read_object(file: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises ValueError naming the file: it cannot be read, is no UTF-8 or no JSON, or holds something else.
    """
    value = _read(file)
    if not isinstance(value, dict):
        raise ValueError(f"{file}: an object was expected, as {{…}}; it is {_described(value)}")
    return value


def read_list(file: Path) -> list[Any]:
    """Read the list in a JSON file. Raises as `read_object`."""
    value = _read(file)
    if not isinstance(value, list):
        raise ValueError(f"{file}: a list was expected, as […]; it is {_described(value)}")
    return value


def _read(file: Path) -> Any:
    if not is_there(file):  # of what is no file the reading may never end
        raise ValueError(f"{file}: {os.strerror(errno.ENOENT)}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    refuse_pointer(file, data)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (at byte {error.start}); JSON was expected") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise ValueError(f"{file}: not readable as JSON: {error}") from error


def is_there(file: Path) -> bool:
    """Tell whether a file is there. Raises ValueError for what has its name and is none, or cannot be seen."""
    try:
        if file.is_file():
            return True
        if not os.path.lexists(file):
            return False
        what = "no file" if file.exists() else "a link that leads nowhere"
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    raise ValueError(f"{file} is {what}: a file was expected, or nothing of that name")


def refuse_pointer(file: Path, start: bytes) -> None:
    """Raise ValueError if a file begins as one that stands for another, which was never fetched."""
    if start.startswith(LFS_POINTER):
        raise ValueError(f"{file} is a pointer of Git LFS, not the file itself: fetch it (git lfs pull)")


def a_whole(value: object, what: str, at_least: int = 0, at_most: int = 2**63 - 1) -> int:
    """Return the value if it is a whole number within these bounds. Raises ValueError that begins with `what`."""
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        if isinstance(value, int) and value > at_most:
            raise ValueError(f"{what} = {shown(value)}: at most {at_most} was expected")
        raise ValueError(f"{what} = {shown(value)}: a whole number of at least {at_least} was expected")
    return value


def a_number(value: object, what: str) -> float:
    """Return the value if it is a finite number above 0. Raises ValueError that begins with `what`."""
    # JSON's integers have any number of digits, so one may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ValueError(f"{what} = {shown(value)}: a number above 0 was expected")
    return float(value)


def _described(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else shown(value)
