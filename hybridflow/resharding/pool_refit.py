"""Refit where generation has a pool of its own: each training rank sends slices, each rollout rank gets its own.

A rollout rank asks for its buckets in order and never for more than two at a time; a training rank sends the first
buckets of all its takers, then the second ones, and so on, with at most two on their way. Of all messages that are
left, in that order, the first has both its ends waiting for it, so none waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.engines.sharding import Shardings
from hybridflow.models import Weight
from hybridflow.parallel.platform import platform
from hybridflow.resharding.fingerprints import MODULUS, regions_of
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import Bucket, Exchange, Part, Plan, make_pool_plan
from hybridflow.resharding.plan.buckets import BUCKET_BYTES
from hybridflow.resharding.pool_link import Link
from hybridflow.resharding.refit import TRIES, WeightUpdate, in_short, wrong_by_rank
from hybridflow.resharding.transport import Arriving, Shards, Transport, in_hf_shape


def plan_for(shardings: Shardings, link: Link, dtype: torch.dtype, bucket_bytes: int) -> Plan:
    """Make the plan, which all ranks make alike. Raises ValueError as `make_pool_plan`, RuntimeError as `Link`."""
    layouts = link.training, link.generation
    plan = make_pool_plan(shardings, *layouts, itemsize=dtype.itemsize, bucket_bytes=bucket_bytes)
    link.refuse_another_plan(plan.digest)
    return plan


class WeightSender:
    """Sends a training rank's shards to the rollout ranks.

    Args:
        local: its training shards.
        verify: send fingerprints of what was sent, too, and all again where they are not met; as on the other side.

    Attributes:
        plan: of all ranks.
        peak_bytes: the most bytes of the last refit's buffers.
    """

    def __init__(
        self,
        shardings: Shardings,
        link: Link,
        local: Shards,
        dtype: torch.dtype,
        *,
        verify: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.plan = plan_for(shardings, link, dtype, bucket_bytes)
        self.link = link
        self.peak_bytes = 0
        self._local = local
        self._dtype = dtype
        self._verify = verify
        self._sharding = shardings.training
        self._at = link.training.coordinates[link.rank]
        self._exchanges = [e for e in self.plan.exchanges if link.rank in e.givers]

    def __call__(self, versions: Mapping[int, int], version: int) -> bool:
        """Send this rank's parts to all that have another version; return whether any has.

        Args:
            versions: of each rollout rank, by its number.
        """
        stale = [exchange for exchange in self._exchanges if versions[exchange.takers[0]] != version]
        for _ in range(TRIES):
            self._send(stale)
            if not self._verify or self._is_proved(stale):
                break
        return bool(stale)

    def _send(self, stale: list[Exchange]) -> None:
        alive = Alive()
        under_way = deque[dist.Work]()
        for exchange, bucket in self._in_order(stale):
            if len(under_way) == 2:
                under_way.popleft().wait()
            under_way.append(self.link.send(self._filled(exchange, bucket, alive), exchange.takers[0]))
        for work in under_way:
            work.wait()
        self.peak_bytes = alive.peak

    def _is_proved(self, stale: list[Exchange]) -> bool:
        """Give the fingerprints of what was sent, and hear whether all takers have met theirs."""
        for exchange in stale:
            self.link.send(self._sums(exchange).to(platform().device), exchange.takers[0]).wait()
        verdict = torch.ones(1, dtype=torch.int64, device=platform().device)
        for exchange in stale:
            self.link.receive(verdict, exchange.takers[0]).wait()  # all say the same
        return bool(verdict.item())

    def _in_order(self, stale: list[Exchange]) -> Iterator[tuple[Exchange, Bucket]]:
        for number in range(max((len(exchange.buckets) for exchange in stale), default=0)):
            for exchange in stale:
                mine = exchange.givers.index(self.link.rank)
                if number < len(exchange.buckets) and exchange.buckets[number].sizes[mine]:
                    yield exchange, exchange.buckets[number]

    def _filled(self, exchange: Exchange, bucket: Bucket, alive: Alive) -> Tensor:
        mine = exchange.givers.index(self.link.rank)
        size = bucket.sizes[mine]
        buffer = alive.watch(torch.empty(size, dtype=self._dtype, device=platform().device))
        start = 0
        for item, part in bucket.given_by(mine):
            slices = self._slices(item.weight, part)
            buffer[start : start + part.elements].view(slices.shape).copy_(slices)
            start += part.elements
        return buffer

    def _slices(self, weight: Weight, part: Part) -> Tensor:
        """Return that part of this rank's shard."""
        region = self._sharding.region(weight, self._at)
        assert region is not None, f"the plan asks rank {self.link.rank} for {weight.name}, which it has not"
        a, b = part.span
        return in_hf_shape(self._local.shard(weight), weight).narrow(weight.axis or 0, a - region[0], b - a)

    def _sums(self, exchange: Exchange) -> Tensor:
        """Return the fingerprint of what this rank sends of each weight."""
        mine = exchange.givers.index(self.link.rank)
        items = list(exchange.program.items)
        sums = [
            sum(
                region.fingerprint(self._slices(item.weight, part).to(self._dtype), part.span[0])
                for part in item.parts
                if part.giver == mine
            )
            for item, region in zip(items, regions_of(items, None), strict=True)
        ]
        return torch.tensor([(s + MODULUS // 2) % MODULUS - MODULUS // 2 for s in sums], dtype=torch.int64)


@dataclass(frozen=True)
class WeightReceiver(Transport):
    """Carries out a rollout rank's exchange, whose givers are others: by messages instead of collectives."""

    link: Link | None = None

    def _start(self, bucket: Bucket, room: Tensor) -> Arriving:
        """Receive one message from each giver, into its place."""
        assert self.link is not None
        buffer = room[: bucket.size]
        givers = sorted(giver for giver, size in bucket.sizes.items() if size)
        rooms = buffer.split([bucket.sizes[giver] for giver in givers])
        works = [
            self.link.receive(room, self.exchange.givers[giver]) for giver, room in zip(givers, rooms, strict=True)
        ]
        return Arriving(buffer, works)


class _Nothing:
    """Training shards of a rank that has none: what it does not get has no rows."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def shard(self, weight: Weight) -> Tensor:
        return torch.empty(weight.with_length(0), dtype=self._dtype, device=platform().device)


class PoolRefit(WeightUpdate):
    """Brings a rollout rank to the newest weights.

    Attributes:
        plan: of all ranks.
    """

    def __init__(
        self,
        shardings: Shardings,
        link: Link,
        dtype: torch.dtype,
        *,
        verify: bool = False,
        identify: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(verify=verify, identify=identify)
        self.plan = plan_for(shardings, link, dtype, bucket_bytes)
        self.link = link
        exchange = self.plan.exchange(link.rank)
        self.regions = {region.weight.name: region for region in regions_of(exchange.program.items, None)}
        self.transport = WeightReceiver(exchange, _Nothing(dtype), None, dtype, platform().device, None, link)

    def _source_fingerprints(self) -> dict[str, int]:
        """Add up what the training ranks say of the pieces that they sent."""
        exchange = self.transport.exchange
        names = [item.weight.name for item in exchange.program.items]
        total = torch.zeros(len(names), dtype=torch.int64, device=platform().device)
        for giver in exchange.givers:
            sums = torch.empty_like(total)
            self.link.receive(sums, giver).wait()
            total += sums  # modulo 2⁶⁴
        return dict(zip(names, total.tolist(), strict=True))

    def _told(self, wrong: list[str]) -> str:
        """Tell the training ranks, too, whether they are to send all again."""
        by_rank = wrong_by_rank(wrong)
        proved = torch.tensor([not any(by_rank)], dtype=torch.int64, device=platform().device)
        for giver in self.transport.exchange.givers:
            self.link.send(proved, giver).wait()
        return "; ".join(
            f"rollout rank {rank}, of training ranks "
            + ", ".join(map(str, self.plan.exchange(self.link.training.size + rank).givers))
            + f": {in_short(names)}"
            for rank, names in enumerate(by_rank)
            if names
        )
