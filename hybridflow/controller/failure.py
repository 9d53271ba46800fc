"""What went wrong on a rank, in a form that travels."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from hybridflow.errors import HybridFlowError


@dataclass(frozen=True)
class Failure:
    """A call that did not succeed on one rank.

    Attributes:
        step: of the algorithm; None outside of one.
        follows: whether it failed only because another call had failed.
        at: when, in seconds since the epoch, so that the first of several is known.
    """

    role: str
    rank: int
    node: str
    method: str
    error: str
    traceback: str
    step: int | None = None
    follows: bool = False
    at: float = field(default_factory=time.time)

    def __str__(self) -> str:
        step = "" if self.step is None else f" in step {self.step}"
        return f"{self.role}.{self.method} failed on rank {self.rank} ({self.node}){step}: {self.error}"


def describe(error: BaseException) -> tuple[str, str]:
    """One line and the whole traceback of an exception."""
    line = "".join(traceback.format_exception_only(error)).strip()
    return line, "".join(traceback.format_exception(error))


class RoleError(HybridFlowError):
    """A role's call failed.

    The message has the first failing rank's traceback, one line on what failed after it, and ends with the cause.
    """

    def __init__(self, first: Failure, others: Sequence[Failure]) -> None:
        super().__init__("\n".join([first.traceback.rstrip(), *_folded(others), str(first)]))
        self.failure = first


def _folded(others: Sequence[Failure]) -> list[str]:
    ranks: dict[str, list[int]] = {}
    for failure in others:
        ranks.setdefault(f"{failure.role}.{failure.method}", []).append(failure.rank)
    calls = "; ".join(f"{call} on rank {', '.join(map(str, sorted(found)))}" for call, found in ranks.items())
    return [f"({len(others)} more failed after it: {calls})"] if others else []
