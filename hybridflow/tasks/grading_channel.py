"""Channel between a rank and a process beside it, as the one that grades: JSON in frames over a socket, never pickle.

A frame is its length, eight bytes, and so many bytes of JSON. Non-ASCII is escaped, so a text may have half of a
surrogate pair, which UTF-8 does not have.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from hybridflow.errors import shown
from hybridflow.tasks.graded_row import GradedRow

HEAD = struct.Struct(">Q")
PIECE = 1 << 18
LARGEST = 1 << 40  # bytes of a frame


class GarbledError(EOFError):
    """What has arrived is no message: a grader has written into the channel, which is of no use any more."""


class Channel:
    """End of the channel.

    Both methods raise EOFError if the other end is closed, and TimeoutError if it takes longer than `timeout_s`;
    `receive` GarbledError, an EOFError, for what is no message.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = bytearray()

    def send(self, message: Any, timeout_s: float | None = None) -> None:
        """Send a message."""
        body = json.dumps(message, separators=(",", ":"), default=_plain).encode("ascii")
        self._end.settimeout(timeout_s)
        try:
            self._end.sendall(HEAD.pack(len(body)) + body)
        except TimeoutError:
            raise
        except OSError as error:  # also of an end that this process has closed, as one that a grader has forked
            raise EOFError from error

    def receive(self, timeout_s: float | None = None) -> Any:
        """Wait for the next message. One that has arrived in part stays where it is if it takes too long."""
        size = self._size()
        while len(self._received) < size:
            self._end.settimeout(timeout_s)
            try:
                piece = self._end.recv(PIECE)
            except TimeoutError:
                raise
            except OSError as error:
                raise EOFError from error
            if not piece:
                raise EOFError
            self._received += piece
            size = self._size()
        try:
            message = json.loads(bytes(self._received[HEAD.size : size]))
        except ValueError as error:
            raise GarbledError("what came through its channel is no message") from error
        del self._received[:size]
        return message

    def _size(self) -> int:
        """Return the bytes of the frame that is arriving, as far as that is known."""
        if len(self._received) < HEAD.size:
            return HEAD.size
        body = int(HEAD.unpack_from(self._received)[0])
        if body > LARGEST:
            raise GarbledError("what came through its channel is no message")
        return HEAD.size + body

    def fileno(self) -> int:
        """Return the descriptor of this end, to wait for what arrives."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end: the other reads no more than what was sent."""
        self._end.close()


class Place:
    """Number in memory that both ends share, which outlives the death of either: at which row the process is."""

    SIZE = 8

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)

    @staticmethod
    def make() -> int:
        """Make such memory, and return its descriptor."""
        descriptor = os.memfd_create("hybridflow-grading")
        os.ftruncate(descriptor, Place.SIZE)
        return descriptor

    def set(self, number: int) -> None:
        """Set the number."""
        HEAD.pack_into(self._memory, 0, number)

    def get(self) -> int:
        """Return the number."""
        return int(HEAD.unpack_from(self._memory)[0])


def _plain(value: Any) -> Any:
    """Return a value of numpy's as JSON has it. Raises TypeError for what JSON cannot express."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"{shown(value)}, of type {type(value).__name__}, cannot travel to another process: give it as JSON has it"
    )


def to_wire(row: GradedRow, whole: bool) -> list[Any]:
    """Return a row as it travels: with all that it has, or response and answer alone."""
    return list(vars(row).values()) if whole else [row.response, row.answer]


def from_wire(fields: Sequence[Any]) -> GradedRow:
    """Return the row whose `to_wire` this is."""
    return GradedRow(*fields)
