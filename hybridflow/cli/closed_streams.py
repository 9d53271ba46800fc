"""Standard output and error of a command whose reader may go away: what is written then is dropped, the run goes on.

`hybridflow train … | head -1`, a pager that is closed, a terminal that hangs up: none of them is a reason to lose hours
of training. Whatever a run found out is in its folder.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

from hybridflow.observe.terminal import turn_to_nowhere

NOBODY_READS = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that is gone


class _Patient(io.FileIO):
    """File descriptor that turns to /dev/null once nobody reads it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in NOBODY_READS:
                raise
        turn_to_nowhere(self.fileno())  # also for what writes to the descriptor itself
        return memoryview(data).nbytes


def outlive_readers() -> None:
    """Make the process's own standard output and error such; streams that a caller has put in their place stay."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = _patient(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _patient(sys.stderr)


def _patient(stream: TextIO | None) -> TextIO:
    if stream is None:  # the descriptor was closed before we began
        return open(os.devnull, "w", encoding="utf-8")
    try:
        stream.flush()
        raw = _Patient(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):  # no file behind it
        return stream
    unbuffered = isinstance(getattr(stream, "buffer", None), io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=bool(getattr(stream, "line_buffering", False)),
        write_through=unbuffered,
    )
