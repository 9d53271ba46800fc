"""Grading beside generation: groups of samples are graded while the others of their call are still sampled.

A flow says `rollout = self.generate(prompts)`, and later `self.reward.compute_reward(rollout)`. Where graders have a
pool that generation does not use, that pool has nothing to do in between. So generation's rows are streamed, each group
that is whole is given to the graders at once, and the flow's own call finds the rewards that it asks for. It gets them
only for the very rows and columns that were graded, so a flow that changes any of them is graded as it says.

Whether to do so follows from the step before: the flow asked for the rewards of what it had generated, and grading
took long enough to be worth more calls. Rows and rewards are the same bits either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.balance import group_numbers
from hybridflow.dispatch import concat, declarations, groups_of
from hybridflow.observe.metrics import TIMES
from hybridflow.roles import RewardRole

WORTH = 0.05  # of generation's seconds, that grading must have taken
PARTS = 8  # that a call's rows are graded in, at most, and that each replica gives them in


class GradingAhead:
    """Generation and the reward of a flow, which know of each other.

    Args:
        actor: samples: the actor's group, or what stands for it.
        reward: the group of graders, on ranks that do not generate.

    Attributes:
        actor: what stands for it in the flow.
        reward: likewise.
    """

    def __init__(self, actor: Any, reward: Any) -> None:
        self.actor = _Sampling(self, actor)
        self.reward = _Grading(self, reward)
        self._actor = actor
        self._reward = reward
        self._reads = declarations(RewardRole)["compute_reward"].reads or ()
        self._ahead = False
        self._calls = 0
        self._sampled: list[tuple[BatchRef, BatchRef | None]] = []
        self._found = 0

    def end_step(self, metrics: Mapping[str, float]) -> None:
        """Decide from what a step measured whether the next one grades ahead."""
        seconds = metrics.get(f"{TIMES}compute_reward", 0.0)
        worth = seconds >= WORTH * metrics.get(f"{TIMES}generate", 0.0) > 0
        self._ahead = worth and 0 < self._calls == self._found
        self._calls = self._found = 0
        self._sampled.clear()

    def generate(self, prompts: BatchRef) -> BatchRef:
        """Sample as `generate_sequences`, and grade meanwhile if that is worth it."""
        self._calls += 1
        if not self._ahead:
            sampled: BatchRef = self._actor.generate_sequences(prompts)
            self._sampled.append((prompts | sampled, None))
            return sampled
        sampled, rewards = self._graded_stream(prompts)
        self._sampled.append((prompts | sampled, rewards))
        return sampled

    def rewards(self, rollout: BatchRef) -> BatchRef:
        """Return the rewards of rows: those that there are already, of just these rows; else by a call for them."""
        for rows, rewards in self._sampled:
            if _same(rollout, rows, self._reads):
                self._found += 1
                if rewards is not None:
                    return rewards
        called: BatchRef = self._reward.compute_reward(rollout)
        return called

    def _graded_stream(self, prompts: BatchRef) -> tuple[BatchRef, BatchRef]:
        """Sample rows and grade their groups as they become whole; return what was sampled, and the rewards."""
        groups = group_numbers(groups_of(prompts))
        left = np.bincount(groups)
        ungraded = np.ones(len(prompts), dtype=bool)
        parts: list[BatchRef] = []
        graded: list[BatchRef] = []
        for rows, part in self._actor.stream_sequences(prompts, together=-(-len(prompts) // PARTS)):
            parts.append(part.with_origin(rows))
            np.subtract.at(left, groups[rows], 1)
            whole = np.flatnonzero(ungraded & (left[groups] == 0))
            if len(whole) * PARTS >= len(prompts) or not left.any():
                ungraded[whole] = False
                graded.append(self._grade(prompts, parts, whole))
        return concat(parts), concat(graded)

    def _grade(self, prompts: BatchRef, parts: Sequence[BatchRef], rows: np.ndarray) -> BatchRef:
        """Call the graders for some of the rows that have been sampled."""
        numbers = np.sort(np.concatenate([np.asarray(part.origin) for part in parts]))
        sampled: BatchRef = concat(parts)
        given = prompts.select(rows) | sampled.select(np.searchsorted(numbers, rows))
        rewards: BatchRef = self._reward.compute_reward(given)
        return rewards.with_origin(rows)


class _Sampling:
    """Stands for the actor in a flow."""

    def __init__(self, ahead: GradingAhead, actor: Any) -> None:
        self._ahead = ahead
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._actor, name)

    def generate_sequences(self, prompts: BatchRef, **options: Any) -> BatchRef:
        """Sample as `ActorRole` says. Rows that are sampled otherwise than `rollout` says are not graded ahead."""
        if options:
            sampled: BatchRef = self._actor.generate_sequences(prompts, **options)
            return sampled
        return self._ahead.generate(prompts)


class _Grading:
    """Stands for the reward in a flow."""

    def __init__(self, ahead: GradingAhead, reward: Any) -> None:
        self._ahead = ahead
        self._reward = reward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reward, name)

    def compute_reward(self, rollout: BatchRef) -> BatchRef:
        """Grade as `RewardRole` says."""
        return self._ahead.rewards(rollout)


def _same(rollout: BatchRef, rows: BatchRef, columns: Sequence[str]) -> bool:
    """Tell whether all of these columns are, row by row, the very same ones, or in neither."""
    if len(rollout) != len(rows) or not np.array_equal(groups_of(rollout), groups_of(rows)):
        return False
    ours, theirs = ({name for name in columns if name in ref.columns} for ref in (rollout, rows))
    return ours == theirs and all(_places(rollout, name) == _places(rows, name) for name in ours)


def _places(rows: BatchRef, column: str) -> list[tuple[int, int, int]] | list[int]:
    """Return where a column's values are: in which chunks, from which row to which; or the values that are known."""
    if column in rows.driver_columns:
        values: list[int] = rows.driver_columns[column].tolist()
        return values
    source = next(source for source in rows.sources if column in source.columns)
    return [(id(chunk), start, stop) for chunk, start, stop in source.runs if start < stop]
