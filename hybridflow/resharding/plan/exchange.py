"""Exchange: which ranks carry a program out together."""

from __future__ import annotations

from dataclasses import dataclass

from hybridflow.resharding.plan.program import Bucket, Program


@dataclass(frozen=True)
class Exchange:
    """Group of ranks and its program. Every taker ends with all that the program says.

    Attributes:
        givers: ranks, by their number in the program; none twice.
        takers: the same ranks if they share out what they hold, by collectives; else one rank that is sent to.
    """

    givers: tuple[int, ...]
    takers: tuple[int, ...]
    program: Program

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Buckets in order of execution."""
        return self.program.buckets

    @property
    def messages(self) -> int:
        """Number of transfers that a taker takes part in.

        A bucket is one all-gather if all give equally much; otherwise a broadcast, or a message, from each giver.
        """
        return sum(1 if self._gathers(bucket) else len(bucket.sizes) for bucket in self.buckets)

    def _gathers(self, bucket: Bucket) -> bool:
        sizes = bucket.sizes
        return self.givers == self.takers and len(sizes) == len(self.givers) and len(set(sizes.values())) == 1

    def __str__(self) -> str:
        """List every bucket, every weight, and the rank that each part comes from."""
        lines = [f"{_ranks(self.takers)} from {_ranks(self.givers)}"]
        for number, bucket in enumerate(self.buckets):
            lines.append(f"  bucket {number}: {bucket.size} numbers")
            for item in bucket.items:
                parts = ", ".join(f"[{a}, {b}) of {self.givers[i]}" for i, (a, b), _ in item.parts)
                nothing = "held already" if item.elements else "has no rows here"
                lines.append(f"    {item.weight.name}: {parts or nothing}")
        return "\n".join(lines)


def _ranks(ranks: tuple[int, ...]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
