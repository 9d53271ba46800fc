"""A failure on a rank, in a form that travels."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hybridflow import former_names
from hybridflow.errors import DataError, HybridFlowError, line_and_trace
from hybridflow.observe.disk_errors import TROUBLE, carried, chain, disk_trouble

LONGEST_LINE = 2_000
LONGEST_TRACE = 20_000  # characters
MAX_NAMED_CALLS = 4  # kinds of calls that failed after the first


# What libraries raise when another rank is not there to meet: gloo's and NCCL's words, in errors of torch's.
LINK_ERRORS = ("gloo/transport", "Connection closed by peer", "Timed out waiting", "NCCL error", "ncclRemoteError")


class FailureKind(StrEnum):
    """Answer to whether the same work may succeed on other processes: decided where the failure happens."""

    INFRA = "infra"  # a process, a node or a link was lost, or did not answer: what was under way can be done again
    DATA = "data"  # a row, or its grade: it would fail again
    BUG = "bug"  # anything else that was raised: it would most likely be raised again


def kind_of(error: BaseException) -> FailureKind:
    """Tell of what kind an exception is, where it was raised. What nobody knows better is taken for a bug."""
    if any(isinstance(link, DataError) for link in chain(error)):
        return FailureKind.DATA
    return FailureKind.INFRA if is_of_link(error) else FailureKind.BUG


def is_of_link(error: BaseException) -> bool:
    """Tell whether an exception only says that another rank was not there. torch raises these as RuntimeError."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LINK_ERRORS)


@dataclass(frozen=True)
class Failure:
    """Call that did not succeed on one rank.

    Attributes:
        step: of the algorithm; None outside of one.
        follows: whether it failed only because another call had failed.
        at: when, in seconds since the epoch, so that the first of several is known.
        kind: whether the same may succeed on other processes.
        of_link: whether it says no more than that another rank was not there to meet.
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
    kind: FailureKind = FailureKind.BUG
    of_link: bool = False

    def __str__(self) -> str:
        step = "" if self.step is None else f" in step {self.step}"
        return f"{self.role}.{self.method} failed on rank {self.rank} ({self.node}){step}: {self.error}"


def describe(error: BaseException) -> tuple[str, str]:
    """Return the cause of an exception of whatever class in one line, and the whole traceback; neither is endless.

    What is meant for the user as it is has no traceback.
    """
    if isinstance(error, HybridFlowError):
        return _shortened(_line(error), LONGEST_LINE), ""
    line, trace = line_and_trace(error, lambda it: _line(_cause(it)))
    return _shortened(line, LONGEST_LINE), _shortened(trace, LONGEST_TRACE)


def _line(error: BaseException) -> str:
    if isinstance(error, HybridFlowError):  # it is meant for the user as it is
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in TROUBLE:
        return ": ".join(str(part) for part in (error.strerror, error.filename) if part)
    return " ".join("".join(traceback.format_exception_only(error)).split()) + former_names.hint(error)


def _cause(error: BaseException) -> BaseException:
    """Return what to report of an exception: itself, but for those that only carry others, and trouble with a disk."""
    if isinstance(error, HybridFlowError):
        return error
    return disk_trouble(error) or next(link for link in chain(error) if not carried(link))


def _shortened(text: str, longest: int) -> str:
    """Keep the beginning and the end of a text."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} … ({len(text)} characters) … {text[-longest // 2 :]}"


class RoleError(HybridFlowError):
    """Failed call of a role.

    The message has the first failing rank's traceback, one line on what failed after it, and ends with the cause.
    """

    def __init__(self, first: Failure, others: Sequence[Failure]) -> None:
        traced = [first.traceback.rstrip()] if first.traceback else []
        super().__init__("\n".join([*traced, *_folded(others), str(first)]))
        self.failure = first


def _folded(others: Sequence[Failure]) -> list[str]:
    """Count the calls that failed after the first, by what was called."""
    calls = Counter(f"{failure.role}.{failure.method}" for failure in others)
    by_call = ", ".join(f"{call} on {number}" for call, number in calls.most_common(MAX_NAMED_CALLS))
    return [f"({len(others)} more failed after it: {by_call})"] if others else []
