"""The folder for temporary files: a cluster of our own has its sockets below it, whose paths the system bounds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hybridflow.errors import shown

LONGEST = 107  # bytes of a socket's path, without the zero that ends it (unix(7))
PREFIX = "hf-ray-"  # of the private folder in it; eight more characters are drawn at random
OF_RAY = "r"  # in that; Ray opens it to all, so its own folder must not be
OF_RANKS = "t"  # beside it: for temporary files
# The longest path below it in Ray 2.60.
SOCKET = f"/{PREFIX}01234567/{OF_RAY}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
VARIABLES = ("RAY_TMPDIR", "TMPDIR")  # as Ray asks them


def place() -> Path:
    """Return the folder for temporary files."""
    return Path(os.environ.get(_variable()) or "/tmp")


def places() -> list[Path]:
    """Return the folders for sockets and for other files: two, where RAY_TMPDIR names one whose path is shorter."""
    return list(dict.fromkeys([place(), Path(tempfile.gettempdir())]))


def _variable() -> str:
    return next((name for name in VARIABLES if os.environ.get(name)), VARIABLES[-1])


def problem() -> str | None:
    """Explain what is wrong with it, as `VARIABLE: what was found; what to do`; None: nothing."""
    name = _variable()
    folder = str(place())
    room = LONGEST - len(SOCKET)
    size = len(os.fsencode(folder))
    if size > room:
        return (
            f"{name}: {folder} is {size} bytes long, and paths of Ray's sockets in it would be longer than the system "
            f"allows: set RAY_TMPDIR to a folder of at most {room} bytes, such as /tmp"
        )
    if not os.path.isabs(folder) or not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        return (
            f"{name}: {shown(folder)} is no folder that can be written, by its whole path: set RAY_TMPDIR to one, such "
            "as /tmp"
        )
    return None
