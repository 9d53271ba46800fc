"""Plan: the exchanges of all ranks, what they cost, and the digest by which ranks see that theirs are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from hybridflow.parallel.layout import Layout, describe
from hybridflow.resharding.plan.exchange import Exchange
from hybridflow.resharding.plan.program import Program


@dataclass(frozen=True)
class Plan:
    """Transition of all ranks; bytes are of payload, and those that a rank has from itself are not counted.

    Attributes:
        method: one of `METHODS`, or "pools".
        layouts: of the ranks; of the actor's pool and the rollout pool.
        itemsize: bytes of a number.
        bucket_bytes: the limit.
        exchanges: by lowest taker.
        redundant: by rank, numbers of its training shard that its generation shard does not contain; of pools none.
    """

    method: str
    layouts: tuple[Layout, ...]
    itemsize: int
    bucket_bytes: int
    exchanges: tuple[Exchange, ...]
    redundant: tuple[int, ...] = ()

    def exchange(self, taker: int) -> Exchange:
        """Return the exchange by which a rank gets its generation shard. Raises KeyError if it gets none."""
        return self._by_taker[taker]

    @cached_property
    def received(self) -> dict[int, int]:
        """Bytes that come from other ranks, by taker."""
        return self._from_others(lambda program: program.given)

    @cached_property
    def outside_formula(self) -> dict[int, int]:
        """Bytes received that the paper's M leaves out: weights that are not split, and a tied embedding's copy."""
        return self._from_others(lambda program: program.outside_formula)

    @cached_property
    def sent(self) -> dict[int, int]:
        """Bytes that go to other ranks, by giver; what reaches n ranks counts n times."""
        by_giver = dict.fromkeys((rank for exchange in self.exchanges for rank in exchange.givers), 0)
        for exchange in self.exchanges:
            takers = set(exchange.takers)
            for giver, elements in exchange.program.given.items():
                rank = exchange.givers[giver]
                by_giver[rank] += self.itemsize * elements * (len(takers) - (rank in takers))
        return by_giver

    @property
    def messages(self) -> int:
        """Transfers that the busiest taker takes part in; see `Exchange.messages`."""
        return max(exchange.messages for exchange in self.exchanges)

    @cached_property
    def largest_bucket(self) -> int:
        """Bytes of the largest bucket."""
        return self.itemsize * max(exchange.program.largest for exchange in self.exchanges)

    @cached_property
    def peak(self) -> int:
        """Bytes of parameters that a rank has at most for generation.

        Its shard and two buckets, one that arrives and one that is taken in; or, where the whole model is gathered
        before anything is sliced out of it, the whole model.
        """
        streams = self.method in ("hybrid", "pools")
        programs = (exchange.program for exchange in self.exchanges)
        return self.itemsize * max(p.elements + 2 * p.largest if streams else p.elements for p in programs)

    @cached_property
    def digest(self) -> str:
        """Hash (sha256) of all that matters to an execution: equal if and only if the ranks will do the same."""
        lines = [f"{self.method} {self.layouts} {self.itemsize} {self.bucket_bytes}"]
        lines += (f"{e.givers} {e.takers} {e.program.digest}" for e in self.exchanges)
        return sha256("\n".join(lines).encode()).hexdigest()

    def __str__(self) -> str:
        """Summarize what it moves and what that costs; `print(plan.exchange(rank))` shows every part."""
        received = self.received.values()
        buckets = max(len(e.buckets) for e in self.exchanges)
        kinds = len({exchange.program.digest for exchange in self.exchanges})
        mean = sum(received) / len(received)
        lines = [
            f"{self.method}: {' → '.join(map(describe, self.layouts))}",
            f"  received      {_bytes(mean)} a rank, at most {_bytes(max(received))}, {_bytes(sum(received))} together",
            f"  of this apart {_bytes(sum(self.outside_formula.values()) / len(received))} a rank: not cut, or tied",
            f"  sent          at most {_bytes(max(self.sent.values()))} by a rank",
            f"  messages      {self.messages} a rank, in {buckets} buckets of at most {_bytes(self.largest_bucket)} "
            f"(limit {_bytes(self.bucket_bytes)})",
            f"  peak          {_bytes(self.peak)} of parameters a rank",
            f"  redundant     at most {_bytes(self.itemsize * max(self.redundant, default=0))} a rank, by layout",
            f"  exchanges     {len(self.exchanges)} of {kinds} kinds; numbers of {self.itemsize} bytes",
            f"  sha256        {self.digest}",
        ]
        return "\n".join(lines)

    @cached_property
    def _by_taker(self) -> dict[int, Exchange]:
        return {rank: exchange for exchange in self.exchanges for rank in exchange.takers}

    def _from_others(self, counted: Callable[[Program], Counter[int]]) -> dict[int, int]:
        by_taker = {}
        for exchange in self.exchanges:
            elements = counted(exchange.program)
            number = {rank: i for i, rank in enumerate(exchange.givers)}
            total = elements.total()
            for rank in exchange.takers:
                own = elements[number[rank]] if rank in number else 0
                by_taker[rank] = self.itemsize * (total - own)
        return by_taker


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
