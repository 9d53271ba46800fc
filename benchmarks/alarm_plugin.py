"""Plugin that brings a pathology about in a run that is otherwise well; HYBRIDFLOW_PATHOLOGY names it.

Graders of bad rewards are registered under their names. What is done to ranks, or to how rows are shared out, is done
from the update or the call on that `SINCE` says, so that the run is well before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.worker_hooks import change_worker, nan_gradient
from hybridflow.dispatch import rows as dispatch_rows
from hybridflow.runtime.rank import Rank
from hybridflow.tasks import graders

PATHOLOGY = "HYBRIDFLOW_PATHOLOGY"
SINCE = 12  # updates of the actor; 2 a step
LEAK_BYTES = 24 * 2**20  # that a call keeps
COARSE = 0.05  # of a weight's largest number: what a number format of four bits leaves
SLOW_S = 0.3  # that a rank takes longer for a call

_kept: list[bytearray] = []


@graders.register("planted_zero")
def zero(response: str, answer: str) -> float:
    """Give 0."""
    return 0.0


@graders.register("planted_failing")
def failing(response: str, answer: str) -> float:
    """Fail at every other answer."""
    if int(answer) % 2:
        raise RuntimeError("a grader that fails")
    return float(response == answer)


@graders.register("planted_by_prompt")
def by_prompt(response: str, answer: str) -> float:
    """Grade the prompt: whatever is answered, it is right for every other one."""
    return float(int(answer) % 2)


@graders.register("planted_short")
def short(response: str, answer: str) -> float:
    """Give more the shorter the response is."""
    return -float(len(response))


@graders.register("planted_long")
def long(response: str, answer: str) -> float:
    """Give more the longer the response is."""
    return float(len(response))


@graders.register("planted_million")
def million(response: str, answer: str) -> float:
    """Give a million for what is right."""
    return 1e6 * float(response == answer)


@graders.register("planted_slow")
def slow(response: str, answer: str) -> float:
    """Take a while."""
    time.sleep(0.012)
    return float(response == answer)


@graders.register("planted_leak")
def leak(response: str, answer: str) -> float:
    """Keep an eighth of a megabyte."""
    _kept.append(bytearray(os.urandom(1) * 2**17))
    return float(response == answer)


def _send_other_weights(worker: Any, made: Callable[[Any, Any], Any]) -> None:
    """Let a weight sync send what `made` gives for a parameter and the one of the last sync; None: it as it is."""
    import torch

    sync = worker.sync_weights
    last: dict[int, Any] = {}

    def changed(self: Any) -> None:
        params = list(self.engine.model.parameters())
        own = [param.data.clone() for param in params]
        with torch.no_grad():
            for number, param in enumerate(params):
                sent = made(param.data, last.get(number)) if self.version >= SINCE else param.data.clone()
                last[number] = sent.clone()
                param.data.copy_(sent)
            sync(self)
            for param, value in zip(params, own, strict=True):
                param.data.copy_(value)

    worker.sync_weights = changed


def _hold_back(worker: Any, rank: int) -> None:
    _send_other_weights(worker, lambda now, last: now if last is None else last)


def _coarse(worker: Any, rank: int) -> None:
    def rounded(now: Any, last: Any) -> Any:
        step = COARSE * now.abs().max().clamp(min=1e-12)
        return (now / step).round() * step

    _send_other_weights(worker, rounded)


def _not_finite(worker: Any, rank: int) -> None:
    """Let gradients be NaN for a while."""
    learn = worker.learn

    def poisoned(self: Any, *given: Any, **options: Any) -> bool:
        if not SINCE <= self.version < SINCE + 3:
            return bool(learn(self, *given, **options))
        with nan_gradient(self.engine):
            return bool(learn(self, *given, **options))

    worker.learn = poisoned


def _keep_memory(worker: Any, rank: int) -> None:
    learn = worker.learn

    def keeping(self: Any, *given: Any, **options: Any) -> bool:
        _kept.append(bytearray(b"x" * LEAK_BYTES))
        return bool(learn(self, *given, **options))

    worker.learn = keeping


def _scale_gradient(times: float) -> Callable[[Any, int], None]:
    """Return a change of a worker that lets all gradients be so many times what they are."""

    def change(worker: Any, rank: int) -> None:
        learn = worker.learn

        def scaled(self: Any, *given: Any, **options: Any) -> bool:
            if self.version < SINCE:
                return bool(learn(self, *given, **options))
            hooks = [param.register_hook(lambda gradient: times * gradient) for param in self.engine.model.parameters()]
            try:
                return bool(learn(self, *given, **options))
            finally:
                for hook in hooks:
                    hook.remove()

        worker.learn = scaled

    return change


def _slow_rank() -> None:
    """Let rank 1 take longer for each call."""
    called = Rank._called

    def late(self: Rank, *arguments: Any) -> Any:
        if self._rank == 1:
            time.sleep(SLOW_S)
        return called(self, *arguments)

    Rank._called = late  # type: ignore[method-assign]


def _uneven() -> None:
    """Share rows out by their number, four fifths of them to the first rank."""

    def first_heavy(shared: np.ndarray, own: np.ndarray, groups: np.ndarray, parts: int) -> list[np.ndarray]:
        heavy = len(own) * 4 // 5
        return [np.arange(heavy), *np.array_split(np.arange(heavy, len(own)), parts - 1)]

    dispatch_rows.partition_groups = first_heavy


HOOKS: dict[str, Callable[[], None]] = {
    "held_back": lambda: change_worker("actor", _hold_back),
    "coarse": lambda: change_worker("actor", _coarse),
    "not_finite": lambda: change_worker("actor", _not_finite),
    "keeps_memory": lambda: change_worker("actor", _keep_memory),
    "no_gradient": lambda: change_worker("actor", _scale_gradient(0.0)),
    "upside_down": lambda: change_worker("actor", _scale_gradient(-1.0)),
    "slow_rank": _slow_rank,
    "uneven": _uneven,
}

if os.environ.get(PATHOLOGY):
    HOOKS[os.environ[PATHOLOGY]]()
