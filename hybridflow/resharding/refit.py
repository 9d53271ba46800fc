"""Refit: give generation the newest weights, once for each weight version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.sharding import Shardings
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups
from hybridflow.resharding.checksums import checksum, differing, source_checksums
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import make_plan
from hybridflow.resharding.transport import Shards, Transport

BUCKET_BYTES = 32 * 2**20  # the C library maps larger blocks anew each time; fresh pages cost more than copies


class WeightUpdate:
    """Brings a receiver to a weight version; a kind of refit adds where the proof's checksums come from.

    Attributes:
        transport: gives this rank's shards.
        peak_bytes: the most bytes that the last refit's buffers and copies were at once.
    """

    transport: Transport

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self.peak_bytes = 0

    def __call__(self, receiver: GenerationEngine, version: int) -> bool:
        """Bring the receiver to `version`; all ranks that generate call it. Return whether there was anything to do.

        Raises RuntimeError, on all of them, if it verifies and one does not have what it was sent.
        """
        if receiver.version == version:
            return False
        alive = Alive()
        loaded = receiver.update_weights(
            self.transport.shards(alive), version, checksum=checksum if self._verify else None
        )
        self.peak_bytes = alive.peak
        if self._verify and (said := self._differing(loaded)):
            receiver.version = None
            raise RuntimeError(
                f"refit to version {version}: generation does not hold what training gave, by their checksums: {said}"
            )
        return True

    def _differing(self, loaded: Mapping[tuple[str, ...], int]) -> str:
        """Describe all ranks' weights that are not as sent."""
        raise NotImplementedError


def in_short(names: Sequence[str]) -> str:
    """Name the first of many weights."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


class Refit(WeightUpdate):
    """Transition from one training engine to the generation engine in the same process.

    Args:
        shardings: over the two views of the groups' layout.
        local: this rank's training shards.
        method: who gathers what; `hybrid`, or for comparison `hybrid_v` or `full_gather` (`resharding.plan`).
        verify: compare checksums of what the receiver holds with the training shards, after each refit.

    Attributes:
        plan: of all ranks.
        weights: of this rank in generation, by name: the part [a, b) of the split axis that it is to have.

    Raises:
        ValueError: the plan cannot be made.
        RuntimeError: ranks have made different plans; the message says which.
    """

    def __init__(
        self,
        shardings: Shardings,
        groups: Groups,
        local: Shards,
        dtype: torch.dtype,
        *,
        method: str = "hybrid",
        verify: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(verify=verify)
        layout = groups.layout
        self._groups = groups
        self.plan = make_plan(shardings, layout, itemsize=dtype.itemsize, bucket_bytes=bucket_bytes, method=method)
        self._refuse_other_plans()
        at = layout.generation_coordinate(groups.rank)
        self._generation = shardings.generation
        self._place = at.tp
        regions = ((weight.name, self._generation.region(weight, at)) for weight in self._generation.weights(at))
        self.weights = {name: region for name, region in regions if region is not None}
        self.transport = Transport(
            self.plan.exchange(groups.rank),
            local,
            groups.micro_dp if method == "hybrid" else groups.replica,
            dtype,
            platform().device,
            None if method == "hybrid" else self.weights,
        )

    def _differing(self, loaded: Mapping[tuple[str, ...], int]) -> str:
        """Compare with the checksums of the training shards, on all ranks."""
        sources = source_checksums(self.transport, self._generation, self._place)
        mine = differing({name: sources[name] for name in self.weights}, loaded)
        return "; ".join(
            f"rank {rank}, of ranks {', '.join(map(str, self.plan.exchange(rank).givers))}: {in_short(names)}"
            for rank, names in enumerate(self._from_all(mine))
            if names
        )

    def _refuse_other_plans(self) -> None:
        digests = self._from_all(self.plan.digest)
        common = max(digests, key=digests.count)
        others = [f"{rank} ({digest[:12]})" for rank, digest in enumerate(digests) if digest != common]
        if others:
            raise RuntimeError(
                f"the plan of a refit has sha256 {common[:12]} on {digests.count(common)} ranks and another on rank "
                f"{', '.join(others)}: model, layout, number format, bucket size and method must be the same on all"
            )

    def _from_all(self, value: Any) -> list[Any]:
        """Gather each rank's value, by rank."""
        group = self._groups.everyone
        values: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(values, value, group=group)
        return values
