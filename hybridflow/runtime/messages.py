"""Messages to and from a rank: the calls that it is asked for and the reports on them, as bytes.

They are made here and not by Ray, which passes bytes on as they are: once for all ranks that are asked the same. Plain
tuples keep them short, for a call's cost is the cost of many small messages.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ray import cloudpickle

from hybridflow.batch import Metadata
from hybridflow.dispatch.message import Message
from hybridflow.observe.metrics import Metrics
from hybridflow.runtime.failure import Failure

PLAIN = frozenset({str, bytes, bool, int, float, type(None)})  # pickle does these faster, and needs no help with them


class Place(NamedTuple):
    """Location of a rank."""

    node: str
    address: str  # of the node
    pid: int
    stacks: int = -1  # see `process_state.offer_stacks`


class NodeView(NamedTuple):
    """Files as a node sees them.

    Attributes:
        folders: by path, the digest of each file in it, see `models.folder_digest`.
        mark: the content of a file; "" if it is not there.
        writes: files can be made beside that.
    """

    folders: Mapping[str, Mapping[str, str]]
    mark: str
    writes: bool = True


class CallRequest(NamedTuple):
    """Call as a rank gets it.

    Attributes:
        chunks: in how many its rows are to be given.
    """

    role: str
    method: str
    message: Message
    chunks: int = 1

    def encode(self) -> bytes:
        """Encode to bytes. Functions and classes of a script, which other processes cannot import, go by value."""
        args, kwargs, _ = self.message
        plain = PLAIN.issuperset(map(type, (*args, *kwargs.values())))
        encoded: bytes = (pickle if plain else cloudpickle).dumps(tuple(self), protocol=5)
        return encoded

    @staticmethod
    def decode(encoded: bytes) -> CallRequest:
        """Decode bytes that this run's controller made."""
        return CallRequest(*pickle.loads(encoded))


class Report(NamedTuple):
    """Report on a call: the small part of its result that goes to the controller, while the rows stay.

    Attributes:
        chunks: what is known of the rows that it gave, by chunk.
        value: what a method that gives no rows returned.
        metrics: None if none were recorded.
        seconds: that the method ran.
        began: when it did, in seconds since the epoch; 0: nobody has noted it, as of a call that is none on a role.
        waited: of the seconds, those in which it waited for other ranks to come to a meeting of ours.
    """

    chunks: tuple[Metadata, ...] = ()
    value: Any = None
    metrics: Metrics | None = None
    seconds: float = 0.0
    failure: Failure | None = None
    began: float = 0.0
    waited: float = 0.0

    def encode(self) -> bytes:
        """Encode to bytes; see `CallRequest`."""
        value = None if self.value is None else cloudpickle.dumps(self.value)
        known = [(chunk.rows, chunk.kinds, _bytes(chunk.lengths), _typed(chunk.numbers)) for chunk in self.chunks]
        metrics = self.metrics.parts() if self.metrics is not None else None
        return pickle.dumps((known, value, metrics, self.seconds, self.failure, self.began, self.waited), protocol=5)

    @staticmethod
    def decode(encoded: bytes) -> Report:
        """Decode bytes that a rank of this run made."""
        known, value, measured, *times = pickle.loads(encoded)
        chunks = tuple(
            [Metadata(rows, kinds, _arrays(lengths), _untyped(numbers)) for rows, kinds, lengths, numbers in known]
        )
        metrics = Metrics(*measured) if measured else None
        return Report(chunks, None if value is None else pickle.loads(value), metrics, *times)


def _bytes(lengths: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Turn arrays into bytes, a fraction of the work for pickle. Columns that share lengths share them here too."""
    encoded: dict[str, bytes] = {}
    shared: dict[int, bytes] = {}
    for name, array in lengths.items():
        if id(array) not in shared:
            shared[id(array)] = array.tobytes()
        encoded[name] = shared[id(array)]
    return encoded


def _arrays(lengths: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(encoded, np.int64) for name, encoded in lengths.items()}


def _typed(numbers: Mapping[str, np.ndarray]) -> dict[str, tuple[str, bytes]]:
    return {name: (array.dtype.str, array.tobytes()) for name, array in numbers.items()}


def _untyped(numbers: Mapping[str, tuple[str, bytes]]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(encoded, dtype) for name, (dtype, encoded) in numbers.items()}
