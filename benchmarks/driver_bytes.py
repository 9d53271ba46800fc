"""Counts what the driver deserializes: `with counted() as found: …; found.tensors`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from ray._private.serialization import SerializationContext

from hybridflow.batch import Batch, Metadata, Ragged
from hybridflow.runtime.messages import Report


@dataclass
class Found:
    """Bytes of arrays and tensors in what this process got.

    Attributes:
        tensors: all but the next.
        lengths: lengths and grades of rows, which travel as metadata.
        reports: messages that were opened.
    """

    tensors: int = 0
    lengths: int = 0
    reports: int = 0


@contextmanager
def counted() -> Iterator[Found]:
    """Count, meanwhile, in all that Ray deserializes in this process and in all reports of ranks."""
    found = Found()
    deserialize, decode = SerializationContext.deserialize_objects, Report.decode

    def deserializing(self: Any, *args: Any, **kwargs: Any) -> Any:
        objects = deserialize(self, *args, **kwargs)
        found.tensors += sum(map(tensor_bytes, objects))
        return objects

    def decoding(encoded: bytes) -> Report:
        report = decode(encoded)
        found.reports += 1
        found.lengths += sum(tensor_bytes(chunk) for chunk in report.chunks)
        found.tensors += tensor_bytes(report._replace(chunks=()))
        return report

    with (
        patch.object(SerializationContext, "deserialize_objects", deserializing),
        patch.object(Report, "decode", staticmethod(decoding)),
    ):
        yield found


def tensor_bytes(thing: Any) -> int:
    """Bytes of every array and tensor inside of something, however deep."""
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return thing.nbytes
    if isinstance(thing, np.ndarray):
        return sum(map(tensor_bytes, thing.ravel()))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.Tensor):
        return int(thing.nbytes)
    if isinstance(thing, Ragged):
        return tensor_bytes(thing.values) + tensor_bytes(thing.offsets)
    if isinstance(thing, (Batch, dict)):
        return sum(tensor_bytes(value) for _, value in thing.items())
    if isinstance(thing, Metadata):
        return tensor_bytes([*thing.lengths.values(), *thing.numbers.values()])
    if isinstance(thing, (list, tuple, set)):
        return sum(map(tensor_bytes, thing))
    if hasattr(thing, "__dict__") and not isinstance(thing, type):
        return tensor_bytes(vars(thing))
    return 0
