"""The order in which steps take the rows of a task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hybridflow.batch import Batch
from hybridflow.tasks.row_order import Mixed, row_order
from hybridflow.tasks.task import Task


class Prompts:
    """Order in which training walks through a split: a new permutation each epoch, without a gap between epochs.

    A task with portions is walked through in their shares, and one with a curriculum by that (`row_order`).

    Invariant: `at(draw)` depends on the seed, the task's rows and `draw` only. So a resumed run goes on in the same
    order by asking for its next draw. A step takes one draw, or more if its algorithm asks for more.

    Example:
        prompts = Prompts(task, "train", rows_per_step=64, seed=1)
        batch = prompts.batch(0)

    Raises:
        ValueError: the split is empty, or a step would have no rows.
    """

    def __init__(self, task: Task, split: str, rows_per_step: int, seed: int) -> None:
        self.task = task
        self.split = split
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.size = task.size(split)
        if self.size < 1:
            raise ValueError(f"split {split!r} of the task is empty: there is nothing to train on; check its options")
        if rows_per_step < 1:
            raise ValueError(f"{rows_per_step} rows per step: at least 1 is needed")
        self.portions = task.portions(split)
        self.order = row_order(self.size, seed, self.portions, task.training_curriculum(split))

    def at(self, draw: int) -> np.ndarray:
        """Return [rows_per_step] int64 row numbers of draw 0, 1, 2, …"""
        return self.order.at(self.places(draw))

    def places(self, draw: int) -> np.ndarray:
        """Return [rows_per_step] int64, the places of a draw's rows in the order, which counts on over epochs."""
        if draw < 0:
            raise ValueError(f"draw {draw}: draws count from 0")
        return draw * self.rows_per_step + np.arange(self.rows_per_step)

    def shares(self) -> Iterator[str]:
        """Yield in words the share of each source of a mixture, and how often it comes round."""
        if not isinstance(self.order, Mixed):
            return
        whole = sum(self.order.counts)
        for portion, count in zip(self.portions, self.order.counts, strict=True):
            rows = len(portion.rows)
            draws = rows * whole / count / self.rows_per_step
            yield (
                f"source {portion.name}: {count / whole:.4g} of the rows that training takes; its {rows} rows come "
                f"round every {draws:.1f} draws"
            )

    def batch(self, draw: int) -> Batch:
        """Return the rows of a draw, as `Task.rows` gives them."""
        return self.task.rows(self.split, self.at(draw))
