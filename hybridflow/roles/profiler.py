"""Profiler: a role that no algorithm has. Its ranks say how fast the machine is that they are on."""

from __future__ import annotations

from collections.abc import Sequence

from hybridflow.dispatch import RowsT, using
from hybridflow.dispatch.known_columns import kinds
from hybridflow.roles.role import Role

Timed = list[list[float]]
"""Measurements: of each its sizes, and then its seconds."""


class ProfilerRole(Role[RowsT]):
    """Measures what calls are made of. Every rank gives seconds; medians of a few tries after one of warm-up."""

    @using("one_to_all")
    def products(self, dtype: str, sizes: Sequence[tuple[int, int, int]]) -> Timed:
        """Multiply [m, k] by [k, n]; give m, k, n and the seconds of each."""
        raise NotImplementedError

    @using("one_to_all")
    def attention(self, sizes: Sequence[tuple[int, int, int, int]]) -> Timed:
        """Attend causally, forward; give rows, heads, tokens, numbers of a head and the seconds of each."""
        raise NotImplementedError

    @using("one_to_all")
    def copies(self, sizes: Sequence[int]) -> Timed:
        """Copy memory on the device; give bytes and the seconds of each."""
        raise NotImplementedError

    @using("one_to_all")
    def collectives(self, kind: str, ranks: int, sizes: Sequence[int]) -> Timed:
        """Do one of a kind among the first ranks, with as many bytes on each; the others wait."""
        raise NotImplementedError

    @using("one_to_all")
    def together(self, ranks: int) -> float:
        """Give the seconds of a fixed piece of work that the first ranks do at the same time; 0 on the others."""
        raise NotImplementedError

    @using("one_to_all")
    def nothing(self) -> None:
        """Do nothing."""

    @using("3d_all_micro_dp", needs=kinds("prompt_ids"), gives=kinds("response_ids"))
    def sample(self, prompts: RowsT) -> RowsT:
        """Give `response_ids`: each prompt again. With `score` and `learn` a flow in which nothing is computed."""
        raise NotImplementedError

    @using("dp_tokens", needs=kinds("prompt_ids", "response_ids"), gives=kinds("values"))
    def score(self, rows: RowsT) -> RowsT:
        """Give `values` of 0."""
        raise NotImplementedError

    @using("dp_tokens", needs=kinds("prompt_ids", "response_ids", "values"))
    def learn(self, rows: RowsT) -> None:
        """Take rows in."""
