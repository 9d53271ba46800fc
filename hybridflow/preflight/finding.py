"""One line of what `hybridflow doctor` has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a finding stands: `bad`, no run can start; `warn`, some runs cannot, or are slower than they need be."""

    ok = "ok"
    warn = "warn"
    bad = "bad"


@dataclass(frozen=True)
class Finding:
    """State of one thing, and what to do about it; nothing is to be done where it is ok.

    Attributes:
        subject: two words or fewer, as `/dev/shm`.
    """

    status: Status
    subject: str
    found: str
    advice: str = ""


def ok(subject: str, found: str) -> Finding:
    """Return a finding that nothing is to be done about."""
    return Finding(Status.ok, subject, found)


def warn(subject: str, found: str, advice: str) -> Finding:
    """Return a finding that some runs fail or wait by."""
    return Finding(Status.warn, subject, found, advice)


def bad(subject: str, found: str, advice: str) -> Finding:
    """Return a finding that no run starts with."""
    return Finding(Status.bad, subject, found, advice)


def worst(findings: list[Finding]) -> Status:
    """Return the worst status of these findings."""
    return max((finding.status for finding in findings), key=[*Status].index, default=Status.ok)
