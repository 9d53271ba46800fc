"""What went wrong on a rank, in a form that travels."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

from hybridflow.errors import HybridFlowError


@dataclass(frozen=True)
class Failure:
    """A call that did not succeed on one rank.

    Attributes:
        follows: whether it failed only because another call had failed.
        at: when, in seconds since the epoch, so that the first of several is known.
    """

    role: str
    rank: int
    node: str
    method: str
    error: str
    traceback: str
    follows: bool = False
    at: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"{self.role}.{self.method} failed on rank {self.rank} ({self.node}): {self.error}"


def describe(error: BaseException) -> tuple[str, str]:
    """One line and the whole traceback of an exception."""
    line = "".join(traceback.format_exception_only(error)).strip()
    return line, "".join(traceback.format_exception(error))


class RoleError(HybridFlowError):
    """A role's call failed; the message has the first failing rank's traceback and ends with the cause."""

    def __init__(self, first: Failure, others: int) -> None:
        more = f"\n({others} other calls failed after it)" if others else ""
        super().__init__(f"{first.traceback.rstrip()}{more}\n{first}")
        self.failure = first
