"""Ranks that are run one after the other."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, stack

from hybridflow.losses.advantages import AdvantageInputs, Estimator


class Ranks:
    """An all_reduce for parts that are run one after the other: replay until every part has given its vectors."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def run(self, estimate: Estimator, parts: list[AdvantageInputs]) -> list[tuple[Tensor, Tensor]]:
        while True:
            asked: list[list[Tensor]] = []
            results = [self._one(estimate, part, asked) for part in parts]
            calls = [len(vectors) for vectors in asked]
            assert len(set(calls)) == 1, f"ranks call all_reduce differently often: {calls}"
            if calls[0] == len(self.sums):
                return results
            self.sums.append(stack([vectors[len(self.sums)] for vectors in asked]).sum(0))

    def _one(self, estimate: Estimator, part: AdvantageInputs, asked: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        vectors: list[Tensor] = []
        asked.append(vectors)

        def all_reduce(vector: Tensor) -> Tensor:
            vectors.append(vector)
            known = len(vectors) <= len(self.sums)
            return self.sums[len(vectors) - 1] if known else vector

        return estimate(replace(part, all_reduce=all_reduce))
