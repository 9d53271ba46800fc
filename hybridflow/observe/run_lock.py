"""The lock of a run folder: one process at a time writes into it, and whoever comes second is told who that is.

It is an OS lock (`flock`) on a file in the folder, so it ends with the process that holds it, however that ends, and it
is the same lock by whatever path the folder is reached. The file is there while the lock is held; after a process was
killed a stale one is left, which locks nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.json_file import read_object

LOCK = ".lock"
PRIVATE = 0o700  # of a run folder when it is made: prompts, answers and settings are nobody else's affair
ENDED = ("Z", "X")  # states of a process in which nothing of it runs any longer
TRIES = 100  # as often as another process may remove the folder that we have just made
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of file systems that have none

Identity = tuple[int, int]
_held: dict[Identity, int] = {}  # the locks of this process: device and inode of the file, and its descriptor
_folders: dict[Path, Identity] = {}  # that they lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if it is not there; no other process can enter meanwhile.

    A process that holds the lock may enter it again.

    Raises ConfigError, having changed nothing, if another process holds it; or if the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        descriptor = _made_and_open(folder)
    except OSError as error:
        _remove_empty(made)
        place = error.filename if error.filename == os.fspath(folder / LOCK) else f"into {folder}"
        raise ConfigError(f"run.root: cannot write {place}: {error.strerror}; choose another") from error
    me = _identity(os.fstat(descriptor))
    if me in _held:
        os.close(descriptor)
        yield
        return
    _held[me] = descriptor
    try:
        _folders[folder] = _identity(folder.stat())
        _write_holder(descriptor, folder)
        yield
    finally:
        if _held.pop(me, None) is not None:  # and not in a forked child, which has let go of it
            ours = _is_ours(folder)
            _folders.pop(folder, None)
            with suppress(OSError):  # the folder may be gone, or have become read-only
                if ours:
                    (folder / LOCK).unlink()
            os.close(descriptor)
            _remove_empty(made)


def check(folder: Path) -> None:
    """Raise HybridFlowError if a folder is gone, or another one has the place of what was `locked` by this path.

    What is written into another one is half a run, which nobody has locked.
    """
    if not _is_ours(folder):
        there = "another is in its place" if folder.exists() else "it is not there any more"
        raise HybridFlowError(
            f"{folder}: somebody moved or removed this run folder while the run wrote into it ({there}). Put it back "
            "and give the same command again, which goes on from its newest checkpoint"
        )


def is_held(folder: Path, process: object = None) -> bool:
    """Tell whether a process seems to have a run folder, by what its lock's file says: nothing is locked to ask.

    Of a process on another machine, where it cannot be looked for, it is believed that it is there.

    Args:
        process: the id of the one that is meant; None: any.
    """
    try:
        holder = read_object(folder / LOCK)
    except ValueError:
        return False
    return process in (None, holder.get("pid")) and (holder.get("host") != socket.gethostname() or _lives(holder))


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder is the one that was locked by this path; also of one that never was."""
    try:
        here = _identity(folder.stat())
    except OSError:
        return False
    return _folders.get(folder, here) == here


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders in which nothing was left, from the innermost outwards."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _made_and_open(folder: Path) -> int:
    """Make the folder and `_open` its lock. Whoever held it before may remove the empty folder, or its file, meanwhile.

    `mkdir` says "exists" of a folder that was there when it tried to make it, and gone when it looked what it is.
    """
    for _ in range(TRIES - 1):
        with suppress(FileNotFoundError, FileExistsError):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            return _open(folder / LOCK)
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    return _open(folder / LOCK)


def _open(file: Path) -> int:
    """Return a descriptor of the file: locked, or of the file that this process has locked already."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            if _identity(os.fstat(descriptor)) in _held:
                return descriptor
            _lock(descriptor, file)
            # Whoever held it before may have removed the file between our opening and our locking it.
            if file.exists() and _identity(file.stat()) == _identity(os.fstat(descriptor)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(_in_use(file.parent, _holder(descriptor))) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _judge_by_holder(file.parent, _holder(descriptor))


def _judge_by_holder(folder: Path, holder: dict[str, object]) -> None:
    """Believe what the file says, as far as it can be checked on this machine: the file system has no locks."""
    host = holder.get("host")
    if host == socket.gethostname() and _lives(holder):
        raise ConfigError(_in_use(folder, holder))
    if holder and host != socket.gethostname():
        raise ConfigError(f"{_in_use(folder, holder)}. If that run is no longer there, remove {folder / LOCK}")


def _lives(holder: dict[str, object]) -> bool:
    """Tell whether a process of this machine is there, and no other has been given its number since."""
    began = _began(holder.get("pid"))
    return began is not None and holder.get("began", began) == began


def _began(pid: object) -> int | None:
    """Return when a process of this machine began, in clock ticks since the machine did; None: it is not there.

    One that has ended and that its parent has not asked about yet is not there either.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        entries = text.rpartition(")")[2].split()  # from the 3rd on; its name, the 2nd, may have any character
        return None if entries[0] in ENDED else int(entries[19])
    except (OSError, ValueError, IndexError):
        return None


def _in_use(folder: Path, holder: dict[str, object]) -> str:
    who = "by another process"
    if holder:
        who = f"by process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return f"run.name: {folder} is in use {who}; wait until it has ended, or give this run another run.name"


def _holder(descriptor: int) -> dict[str, object]:
    """Read what the file says of its holder; {} if it says nothing that can be read."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write_holder(descriptor: int, folder: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "began": _began(os.getpid())}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)
    except OSError as error:  # a full disk
        raise ConfigError(f"run.root: cannot write into {folder}: {error.strerror}; choose another") from error


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _let_go() -> None:
    """Close what a forked child inherited, for a lock lasts until nobody has its file open."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
