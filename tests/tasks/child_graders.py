"""Graders that do what graders should not, for tests with a process that grades: it imports this module."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.tasks import Grade, GradedRow, graders

NONE = [
    None, math.nan, math.inf, -math.inf, 1e39, 10**400, "1.0", "", (1.0, 0.5), [1.0], [], {"score": 1.0}, 1j,
    np.array([1.0]), np.array([1.0, 0.5]), np.float64("nan"), Decimal("sNaN"), np.ma.masked, object(),
]  # fmt: skip
TROUBLES = [*NONE, RuntimeError("the grader lost its marbles"), SystemExit(0)]
LONG = "\x1b]0;marbles" * 10**5


@graders.register("odd")
def odd(response: str, answer: str) -> Any:
    """Give what the answer numbers for the response 3; 1 for all others."""
    if response != "3":
        return 1.0
    if answer == "long":
        return LONG
    trouble = TROUBLES[int(answer)]
    if isinstance(trouble, BaseException):
        raise trouble
    return trouble


def does(response: str) -> float:
    """Do what a response says."""
    match response:
        case "exits":
            os._exit(3)
        case "crashes":
            ctypes.string_at(0)
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(600)
        case "closes":
            os.closerange(3, 256)
            time.sleep(600)
        case "forks":
            os.fork()
        case "garbles":
            for descriptor in range(3, 256):
                with suppress(OSError):
                    os.write(descriptor, b"\xff" * 64)
        case "raises":
            raise RuntimeError("no")
        case "interrupts":
            raise KeyboardInterrupt
    return float(len(response))


@graders.register("does")
def does_as_told(response: str, answer: str) -> float:
    """Print, read what there is to read, and do as told."""
    print("printed by a grader")
    sys.stderr.write("and this\n")
    os.write(1, b"and this, past Python\n")
    assert sys.stdin.read() == ""
    return does(response)


@graders.register("does_async")
async def does_async(row: GradedRow) -> float:
    """Do as told at the same time as others; `waits` as long as a deadline that is told to wait for lets it."""
    if row.response == "waits":
        await asyncio.sleep(600)
    await asyncio.sleep(0)
    return does(row.response)


@graders.register("sleeps")
def sleeps(response: str, answer: str) -> float:
    time.sleep(600)
    return 1.0


RUNNING = [0, 0]


@graders.register("counts_running")
async def counts_running(row: GradedRow) -> float:
    """Count the rows that are graded at the same time, at most."""
    RUNNING[0] += 1
    RUNNING[1] = max(RUNNING)
    for _ in range(3):
        await asyncio.sleep(0)
    RUNNING[0] -= 1
    return float(RUNNING[1])


@graders.register("does_batched", batched=True)
def does_batched(rows: Sequence[GradedRow]) -> list[float]:
    """Do as told, all rows in one call; how many there are stands before the point."""
    return [100.0 * len(rows) + does(row.response) for row in rows]


@graders.register("does_batched_async", batched=True)
async def does_batched_async(rows: Sequence[GradedRow]) -> list[float]:
    await asyncio.sleep(0)
    return does_batched(rows)


@graders.register("has_loop")
def has_loop(response: str, answer: str) -> float:
    """Run a loop of its own, as a grader may that calls a client which knows nothing else."""
    return asyncio.run(does_async(GradedRow(response, answer)))


@graders.register("sees")
def sees(row: GradedRow) -> Grade:
    """Give what is to be seen of a row as parts."""
    seen = [row.prompt, row.raw_response, row.finish_reason, row.source, str(row.sample_id), *row.metadata]
    parts = {text: 1.0 for text in seen if text} | {"tokens": row.response_tokens, "truncated": row.truncated}
    return Grade(1.0, parts | {message["content"]: 2.0 for message in row.messages})


@graders.register("starts_another")
def starts_another(response: str, answer: str) -> float:
    """Start a process that outlives its parent unless somebody ends it, and leave its number where the answer says."""
    child = os.fork()
    if not child:
        if response == "in a session of its own":
            os.setsid()
        time.sleep(600)
        os._exit(0)
    Path(answer).write_text(f"{os.getpid()} {child}")
    return 1.0


@graders.register("steps", token_rewards=True)
def steps(row: GradedRow) -> Grade:
    """Give each token 0.25, and the end of the first character 1."""
    ends = [(1, 1.0)] if row.response else []
    return Grade(0.5, token_rewards=[0.25] * row.response_tokens, step_rewards=ends)


@graders.register("doubling")
class Doubling:
    """Twice the length, or as often as the options say."""

    def __init__(self, *, times: float = 2.0) -> None:
        self.times = times

    def __call__(self, response: str, answer: str) -> float:
        return self.times * len(response)
