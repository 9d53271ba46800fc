"""Seated: a role with a model on its ranks, as the bytes of these are asked for, and what more than one of them has."""

from __future__ import annotations

from math import ceil, floor
from typing import NamedTuple

from hybridflow.config.schema import Device
from hybridflow.parallel.layout import Layout
from hybridflow.planning.run_spec import Load, RoleModel
from hybridflow.planning.workload import shared_rows
from hybridflow.resharding.plan.buckets import BUCKET_BYTES


class Seated(NamedTuple):
    """Role on its seat: its layout, and what the bytes of its ranks depend on besides.

    Attributes:
        memory: bytes of the device; 0: not known.
        only_generates: its pool is generation's own, and its layout that of its replicas.
        sends: generation has a pool of its own, to which it sends its weights.
    """

    model: RoleModel
    layout: Layout
    load: Load
    device: Device
    memory: float
    only_generates: bool
    sends: bool = False

    @property
    def state_ranks(self) -> int:
        """Return how many ranks share out an optimizer's state."""
        return self.layout.data * self.layout.context if self.model.sharded_optimizer else 1

    @property
    def width(self) -> int:
        """Return the bytes of a number in the model's format."""
        return self.model.number_bytes

    def micro_batch(self, rows: int) -> tuple[float, float]:
        """Return the tokens of the largest micro-batch of a call with so many rows, and how many a rank has."""
        model, layout, load = self.model, self.layout, self.load
        count = max(ceil(rows / layout.data), 1)
        budget = max(float(model.max_tokens_per_rank), load.longest)
        tree = shared_rows(count, load, budget)
        part = load.row_tokens * (1 + (tree - 1) * load.learned)  # of rows of a prompt, which is there once
        own = count / tree * part
        if load.alike:
            budget = max(1, floor(budget / part)) * part
        tokens = min(own, budget)
        return tokens / layout.context, ceil(own / tokens)

    def learned_share(self, rows: int) -> float:
        """Return the share of a micro-batch's tokens that are a response's, in a call with so many rows."""
        return self.load.learned * self.copied_share(rows)

    def copied_share(self, rows: int) -> float:
        """Return how many tokens rows have for each that is computed: their prompts may be shared."""
        load = self.load
        budget = max(float(self.model.max_tokens_per_rank), load.longest)
        tree = shared_rows(max(ceil(rows / self.layout.data), 1), load, budget)
        return tree / (1 + (tree - 1) * load.learned)


def two_buckets(role: Seated, weights: int, largest: int) -> float:
    """Return the bytes of two buckets that are under way; a weight larger than a bucket is one of its own."""
    return min(float(role.width * weights), max(BUCKET_BYTES, role.width * largest) + BUCKET_BYTES)
