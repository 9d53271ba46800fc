"""Private folders of a run in the temporary one: those by whose files ranks of a node meet, and that of Ray's session.

Whoever made a run removes its folders at the end, but nobody does after a `kill -9`. So each is locked by its process,
and the next start sweeps those of dead ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "hybridflow-meeting-"
OWNER = "owner"
REMOVED_WITHIN_S = 5.0

_held: list[int] = []  # descriptors of the owner files of this process; closed, and so unlocked, when it ends


def make(prefix: str = PREFIX, place: Path | None = None) -> Path:
    """Make a folder that only this user can read. What ended processes left beside it is removed.

    Args:
        place: None: where temporary files are.
    """
    place = place or Path(tempfile.gettempdir())
    sweep(place, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        with suppress(FileNotFoundError):  # another process took it for a dead one's before it was locked
            descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if (folder / OWNER).exists():
                _held.append(descriptor)
                return folder
            os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder; processes that are about to end may still make a file in it."""
    end = time.monotonic() + REMOVED_WITHIN_S
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Tell whether the process that made a folder has ended, or the folder is gone. Another user's counts as in use."""
    try:
        descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return not folder.exists()
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def sweep(place: Path, prefix: str = PREFIX) -> None:
    """Remove the folders whose processes have ended."""
    for owner in place.glob(f"{prefix}*/{OWNER}"):
        with suppress(OSError):  # it is another user's, or somebody else sweeps it
            descriptor = os.open(owner, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owner.parent, ignore_errors=True)
            finally:
                os.close(descriptor)
