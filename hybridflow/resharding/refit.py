"""Refit: give generation the newest weights, once for each weight version."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.sharding import Shardings
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups
from hybridflow.resharding.fingerprints import Region, differing, regions_of, same_bits, source_fingerprints
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import make_plan
from hybridflow.resharding.plan.buckets import BUCKET_BYTES
from hybridflow.resharding.transport import Shards, Transport, in_hf_shape

log = logging.getLogger(__name__)

TRIES = 2  # a weight sync whose proof fails is made once more


class WeightUpdate:
    """Brings a receiver to a weight version; a kind of refit adds where the proof's fingerprints come from.

    Attributes:
        transport: gives this rank's shards.
        regions: of this rank in generation, by name.
        peak_bytes: the most bytes that the last refit's buffers and copies were at once.
        proof_seconds: that the last one's proof took on this rank.
        repeated: 1 if the last one was made twice, else 0.
        identity: equal for equal weights on equal layouts, and alike on all ranks that generate; "" unless it
            identifies.
    """

    transport: Transport
    regions: Mapping[str, Region]

    def __init__(self, *, verify: bool, identify: bool = False) -> None:
        self._verify = verify
        self._identify = identify
        self.identity = ""
        self._proved: int | None = None
        self._before: Mapping[str, int] = {}
        self._sources: Mapping[str, int] = {}
        self.peak_bytes = 0
        self.proof_seconds = 0.0
        self.repeated = 0

    def __call__(self, receiver: GenerationEngine, version: int) -> bool:
        """Bring the receiver to `version`; all ranks that generate call it. Return whether there was anything to do.

        Raises RuntimeError if it verifies: on all of them, if one does not compute with what it was sent; and on one
        that has got a version past this.
        """
        if receiver.version == version:
            if self._verify and self._proved != version:
                raise RuntimeError(f"generation says that it has weights of version {version}, which no refit gave it")
            return False
        self.proof_seconds = 0.0
        for self.repeated in range(TRIES):
            alive = Alive()
            readings = WeightReadings(self.fingerprint) if self._verify else None
            receiver.update_weights(self.transport.shards(alive), version, readings=readings)
            self.peak_bytes = alive.peak
            if readings is None or not (said := self._unproved(receiver, version, readings)):
                self._proved = version
                self._before = self._sources
                if self._identify and readings is not None:
                    self.identity = common_identity(self._identified(readings), self._generating)
                return True
            receiver.version = None
            if self.repeated < TRIES - 1:
                log.warning("refit to version %d is made again: %s", version, said)
        raise RuntimeError(
            f"refit to version {version}, twice: generation does not compute with what training gave, by their "
            f"fingerprints: {said}. Nothing was sampled with these weights. Look at the generation engine of that "
            "rank, at its memory, and at what was changed last in either engine; `rollout.verify_refit=false` leaves "
            "this check out"
        )

    def _unproved(self, receiver: GenerationEngine, version: int, readings: WeightReadings) -> str:
        """Describe all ranks' weights that are not as given; nothing if there are none."""
        start = perf_counter()
        sources = self._source_fingerprints()
        wrong = differing(
            list(self.regions.values()),
            sources,
            readings.found if receiver.version == version else {},
            self._before,
            self._proved,
        )
        self._sources = sources
        # What follows waits for the slowest rank, and that is no cost of the proof.
        self.proof_seconds += readings.seconds + perf_counter() - start
        return self._told(wrong)

    def fingerprint(self, name: str, numbers: Tensor) -> int | None:
        """Compute that of a region that the engine has; None if it has too few rows."""
        region = self.regions[name]
        first, end = region.span
        axis = region.weight.axis or 0
        if numbers.shape[axis] < end - first:
            return None
        return self._fingerprint(region, numbers.narrow(axis, 0, end - first))

    def _fingerprint(self, region: Region, numbers: Tensor) -> int:
        return region.fingerprint(numbers, region.span[0])

    def _identified(self, readings: WeightReadings) -> Mapping[str, int | None]:
        """Return the fingerprint of each weight's region that this rank generates with."""
        return readings.found

    @property
    def _generating(self) -> dist.ProcessGroup | None:
        """The group of the ranks that generate; None: all of this pool."""
        return None

    def _source_fingerprints(self) -> dict[str, int]:
        """Return the fingerprint of each weight's region that this rank is to have, from the training shards."""
        raise NotImplementedError

    def _told(self, wrong: list[str]) -> str:
        """Tell all ranks what is wrong on this one, and describe what is wrong on any."""
        raise NotImplementedError


def wrong_by_rank(mine: list[str], group: dist.ProcessGroup | None = None) -> list[list[str]]:
    """Gather what is wrong on each rank of a group, if anything is on any."""
    count = torch.tensor([len(mine)], device=platform().device)
    dist.all_reduce(count, group=group)
    by_rank: list[list[str]] = [[] for _ in range(dist.get_world_size(group))]
    if count.item():
        dist.all_gather_object(by_rank, mine, group=group)
    return by_rank


def common_identity(found: Mapping[str, int | None], group: dist.ProcessGroup | None = None) -> str:
    """Return one digest of the fingerprints that all ranks of a group have found, alike on all of them."""
    own = blake2b(digest_size=8)
    for name, value in sorted(found.items()):
        own.update(f"{name} {value}\n".encode())
    mine = torch.tensor([int.from_bytes(own.digest(), "little", signed=True)], device=platform().device)
    by_rank = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(by_rank, mine, group=group)
    return blake2b(torch.cat(by_rank).cpu().numpy().tobytes(), digest_size=16).hexdigest()


def in_short(names: Sequence[str]) -> str:
    """Name the first of many weights."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


class Refit(WeightUpdate):
    """Transition from one training engine to the generation engine in the same process.

    Args:
        shardings: over the two views of the groups' layout.
        local: this rank's training shards.
        method: who gathers what; `hybrid`, or for comparison `hybrid_v` or `full_gather` (`resharding.plan`).
        verify: compare fingerprints of what the receiver computes with and of the training shards, after each refit.
        identify: and make an `identity` of them.

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
        identify: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(verify=verify, identify=identify)
        self._untraveled: dict[str, int] = {}  # of those that it is this rank's turn to identify
        layout = groups.layout
        self._groups = groups
        self.plan = make_plan(shardings, layout, itemsize=dtype.itemsize, bucket_bytes=bucket_bytes, method=method)
        self._refuse_other_plans()
        at = layout.generation_coordinate(groups.rank)
        self._generation = shardings.generation
        self._place = at.tp
        regions = ((weight.name, self._generation.region(weight, at)) for weight in self._generation.weights(at))
        self.weights = {name: region for name, region in regions if region is not None}
        replica = layout.coordinates[groups.rank].dp
        # Data parallel ranks have the same shards: each identifies some of what stays where it is.
        self._share = {name for number, name in enumerate(sorted(self.weights)) if number % layout.data == replica}
        exchange = self.plan.exchange(groups.rank)
        self._travels = {item.weight.name for item in exchange.program.items if item.parts}
        arriving = regions_of(exchange.program.items, self.weights, self._generation)
        self.regions = {region.weight.name: region for region in arriving}
        self.transport = Transport(
            exchange,
            local,
            groups.micro_dp if method == "hybrid" else groups.replica,
            dtype,
            platform().device,
            None if method == "hybrid" else self.weights,
        )

    def _fingerprint(self, region: Region, numbers: Tensor) -> int:
        """Compare what has not traveled with this rank's own shard: 0 if they are the same, as the source has it."""
        weight = region.weight
        if weight.name in self._travels:
            return super()._fingerprint(region, numbers)
        if self._identify and weight.name in self._share:  # that it is the same tells nothing to another process
            self._untraveled[weight.name] = super()._fingerprint(region, numbers)
        own = in_hf_shape(self.transport.local.shard(weight), weight).to(self.transport.dtype)
        return int(not same_bits(own, numbers))

    def _identified(self, readings: WeightReadings) -> Mapping[str, int | None]:
        return {**readings.found, **self._untraveled}

    @property
    def _generating(self) -> dist.ProcessGroup | None:
        return self._groups.everyone

    def _source_fingerprints(self) -> dict[str, int]:
        return source_fingerprints(self.transport, self._generation, self._place)

    def _told(self, wrong: list[str]) -> str:
        return "; ".join(
            f"rank {rank}, of ranks {', '.join(map(str, self.plan.exchange(rank).givers))}: {in_short(names)}"
            for rank, names in enumerate(wrong_by_rank(wrong, self._groups.everyone))
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
