"""Graders for the trials of algorithms, in a module that a process which grades can import alone."""

from __future__ import annotations

from hybridflow.tasks import graders


@graders.register("conformance_even")
def even(response: str, answer: str) -> float:
    """Grade so that a random model is as often right as wrong."""
    return float(sum(map(ord, response)) % 2 == 0)


@graders.register("conformance_count")
def count(response: str, answer: str) -> float:
    """Count the characters of a response: a cost that always varies."""
    return float(len(response))
