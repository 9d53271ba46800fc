"""What a rank reports of a call, and the bytes in which both travel.

Calls and reports are turned into bytes here, once for all ranks that get the same, since Ray passes bytes on as they
are.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

from ray import cloudpickle

from hybridflow.batch import Metadata
from hybridflow.controller.failure import Failure
from hybridflow.observe.metrics import Metrics


@dataclass(frozen=True)
class Report:
    """The small part of a call's result: it goes to the controller, the rows stay.

    Attributes:
        chunks: what is known of the rows that it gave, by chunk.
        value: what a method that gives no rows returned.
        seconds: that the method ran.
    """

    chunks: tuple[Metadata, ...] = ()
    value: Any = None
    metrics: Metrics = field(default_factory=Metrics)
    seconds: float = 0.0
    failure: Failure | None = None


def encode(thing: Any) -> bytes:
    """To bytes. Functions and classes of a script, which other processes cannot import, go by value."""
    encoded: bytes = cloudpickle.dumps(thing)
    return encoded


def decode(encoded: bytes) -> Any:
    """From bytes that this run's own processes made."""
    return pickle.loads(encoded)
