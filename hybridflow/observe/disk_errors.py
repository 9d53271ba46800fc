"""Trouble with a disk: found behind whatever was made of it, and told in one line with the path."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hybridflow.errors import HybridFlowError

TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
PROBE_BYTES = 2**20  # so that the file system must find new blocks for it


class DiskError(HybridFlowError):
    """A disk takes no more, or nothing at all; the message is the system's, with the path."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise DiskError, such as `No space left on device: runs/mine/metrics.jsonl`, if the block fails because of
    the disk.

    Args:
        path: what is written, for errors that do not name a file.
    """
    try:
        yield
    except (HybridFlowError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        known = next((link for link in chain(error) if isinstance(link, DiskError)), None)
        if known is not None:  # of another rank
            raise known from error
        if isinstance(error, OSError) and error.errno is not None:  # and not in words of ours, of what is read
            trouble: OSError | None = error
        else:
            trouble = disk_trouble(error) or _tried(path)
        if trouble is not None:
            raise DiskError(f"{trouble.strerror or trouble}: {trouble.filename or path}") from error
        raise


def disk_trouble(error: BaseException) -> OSError | None:
    """Return the disk's error behind an exception, preferably one that names a file; None if there is none."""
    found = (link if isinstance(link, OSError) else _of_rust(link) for link in chain(error))
    troubles = [link for link in found if link is not None and link.errno in TROUBLE]
    return next((trouble for trouble in troubles if trouble.filename), troubles[0] if troubles else None)


def _of_rust(error: BaseException) -> OSError | None:
    """Return the system's error that a library written in Rust, as safetensors, gives by its number alone."""
    said = error.args[0] if error.args else None  # and not str(): an exception may break when it is asked what it is
    number = re.search(r"\(os error (\d+)\)", said) if isinstance(said, str) else None
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, those that it carries, and those that led to it; each once."""
    waiting = [error]
    seen: set[int] = set()  # by identity: exceptions may compare equal, and a chain may have a circle
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        led = [other for other in (link.__cause__, link.__context__) if other is not None]
        waiting = [*carried(link), *waiting, *led]


def carried(error: BaseException) -> list[BaseException]:
    """List the exceptions of a group; or by rank, as torch's CheckpointException has them with their stacks."""
    if isinstance(error, BaseExceptionGroup):
        return list(error.exceptions)
    failures = getattr(error, "failures", None)
    if not isinstance(failures, Mapping):
        return []
    values = [value[0] if isinstance(value, tuple) and value else value for value in failures.values()]
    return [value for value in values if isinstance(value, BaseException)]


def _tried(path: Path) -> OSError | None:
    """Return the error of a disk that takes no more by writing to it: torch's writer says `unexpected pos 704`."""
    folder = next(folder for folder in (path, *path.parents) if folder.is_dir())
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        return OSError(error.errno, error.strerror) if error.errno in TROUBLE else None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None
