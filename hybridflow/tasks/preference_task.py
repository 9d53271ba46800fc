"""Tasks with preferences: two responses to each question, one better than the other, as a reward model needs them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch import Batch
from hybridflow.tasks.task import Task


class PreferenceTask(Task):
    """Task whose every example also has a worse answer; `example(...).answer` is the better one."""

    labels: ClassVar[tuple[str, ...]] = ()
    """What `preferences` has of a pair beside its two sides."""

    @abstractmethod
    def rejected(self, split: str, index: int) -> str:
        """Return the worse answer to `example(split, index)`; like that, a pure function of its arguments."""

    def preferences(self, split: str, indices: ArrayLike) -> Batch:
        """Return `supervised`, whose responses are the better ones, with `rejected_ids` (ragged int64): the worse ones.

        A row is a pair, so nothing that moves rows can separate its two sides. Raises as `supervised`.
        """
        with self._each_example_once():
            batch = self.supervised(split, indices)
            texts = [self.rejected(split, index) for index in np.asarray(indices, dtype=np.int64).tolist()]
            return batch | Batch(rejected_ids=self.responses(split, indices, texts))


class HarmTask(PreferenceTask):
    """Task with preferences that also labels every response as harmful or not, as a cost model needs it.

    The better answer is the less harmful one; both may be harmful, or neither.
    """

    labels = ("chosen_harmful", "rejected_harmful")

    @abstractmethod
    def harmful(self, split: str, index: int) -> tuple[bool, bool]:
        """Return whether the better, and whether the worse answer to `example(split, index)` is harmful; a pure
        function.
        """

    def preferences(self, split: str, indices: ArrayLike) -> Batch:
        """Return the pairs with `chosen_harmful` and `rejected_harmful` ([R] bool)."""
        labels = [self.harmful(split, index) for index in np.asarray(indices, dtype=np.int64).tolist()]
        columns = np.array(labels, dtype=bool).reshape(-1, 2).T
        return super().preferences(split, indices) | Batch(**dict(zip(self.labels, columns, strict=True)))
