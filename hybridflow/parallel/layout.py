"""Layout: the sizes of tensor, pipeline and data parallelism, and which rank has which coordinates. Pure.

The same ranks have two views. In training they are t × p × d. In generation each training replica (t · p ranks)
becomes d_g = t·p / (t_g·p_g) replicas of t_g × p_g ranks, by coordinates (HybridFlow, section 5.3, restated so that it
holds for any rank order):

    generation tp = tp // (t / t_g)        generation pp = pp // (p / p_g)

so the shard that a rank generates with contains the shard that it trains. The ranks of one training replica that
share both numbers are a *micro-DP group*: together they hold that generation shard once.

For comparison there is the paper's HybridFlow-V, which does not nest: generation numbers the ranks of a training
replica anew, tensor ranks first, so its groups are neighbors and a rank's two shards may have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from hybridflow.errors import counted
from hybridflow.former_names import Renamed

AXES = ("tp", "cp", "ep", "dp", "pp")


@dataclass(frozen=True)
class Coordinate:
    """Position of a rank on each axis."""

    tp: int = 0
    pp: int = 0
    dp: int = 0
    cp: int = 0


@dataclass(frozen=True)
class Layout(Renamed):
    """Sizes and rank order of one role.

    Attributes:
        tensor, pipeline, data: t, p, d.
        context: c; the ranks of a context group share rows and weights. In generation each is a replica of its own.
        expert: e; a mixture's experts are shared out over e of the t·c·d ranks of a stage: no more ranks. No
            engine takes more than 1 yet.
        generation: (t_g, p_g), the sizes in generation; (t, p) when the role does not generate.
        order: axes from the one that varies fastest with the rank; Megatron's default.
        nested: whether a rank's generation shard contains its training shard; False is HybridFlow-V.

    Raises ValueError if a generation size does not divide its training size, or e the ranks that it is made of.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    generation: tuple[int, int] | None = None
    order: str = "tp-cp-ep-dp-pp"
    context: int = 1
    nested: bool = True
    expert: int = 1

    def __post_init__(self) -> None:
        if min(self.tensor, self.pipeline, self.data, self.context, self.expert) < 1:
            raise ValueError(f"parallel sizes must be at least 1: {self}")
        if sorted(self.order.split("-")) != sorted(AXES):
            raise ValueError(f"order {self.order!r} must name each of {', '.join(AXES)} once")
        if self.tensor * self.context * self.data % self.expert:
            raise ValueError(f"expert size {self.expert} must divide the ranks of a stage: {self}")
        t_g, p_g = self.generation_sizes
        if min(t_g, p_g) < 1 or self.tensor % t_g or self.pipeline % p_g:
            raise ValueError(f"generation sizes {(t_g, p_g)} must divide training sizes {(self.tensor, self.pipeline)}")

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.tensor * self.pipeline * self.data * self.context

    @property
    def generation_sizes(self) -> tuple[int, int]:
        """Sizes in generation, (t_g, p_g)."""
        return self.generation or (self.tensor, self.pipeline)

    @property
    def replicas(self) -> int:
        """Number of replicas in generation, d · c · d_g."""
        t_g, p_g = self.generation_sizes
        return self.size // (t_g * p_g)

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Coordinates of every rank, by rank."""
        sizes = {"tp": self.tensor, "pp": self.pipeline, "dp": self.data, "cp": self.context}
        coordinates = []
        for rank in range(self.size):
            at: dict[str, int] = {}
            for axis in self.order.split("-"):
                if axis in sizes:
                    rank, at[axis] = divmod(rank, sizes[axis])
            coordinates.append(Coordinate(**at))
        return tuple(coordinates)

    def groups(self, *axes: str) -> list[list[int]]:
        """List the ranks that differ only along these axes: one list a group, each in rank order; groups by lowest
        rank.
        """
        fixed = [axis for axis in ("tp", "cp", "pp", "dp") if axis not in axes]
        groups: dict[tuple[int, ...], list[int]] = {}
        for rank, at in enumerate(self.coordinates):
            groups.setdefault(tuple(getattr(at, axis) for axis in fixed), []).append(rank)
        return list(groups.values())

    # One rank for each part of a result.

    @cached_property
    def output_ranks(self) -> tuple[int, ...]:
        """Ranks that have a model's outputs, by replica: (tensor 0, context 0, last stage) of each."""
        return self._chosen(lambda at: at.tp == at.cp == 0 and at.pp == self.pipeline - 1, lambda at: at.dp)

    @cached_property
    def stage_ranks(self) -> tuple[int, ...]:
        """Ranks that stand for the pipeline stages, by stage: (tensor 0, context 0, data 0) of each."""
        return self._chosen(lambda at: at.tp == at.cp == at.dp == 0, lambda at: at.pp)

    @cached_property
    def replica_ranks(self) -> list[list[int]]:
        """Ranks of each generation replica, by replica."""
        ranks: list[list[int]] = [[] for _ in range(self.replicas)]
        for rank, at in enumerate(self.generation_coordinates):
            ranks[at.dp].append(rank)
        return ranks

    @cached_property
    def generation_output_ranks(self) -> tuple[int, ...]:
        """Ranks that have the outputs of the generation replicas, by replica: (tensor 0, last stage) of each."""
        last = self.generation_sizes[1] - 1
        at = self.generation_coordinates
        return tuple(sorted((r for r, a in enumerate(at) if a.tp == 0 and a.pp == last), key=lambda r: at[r].dp))

    def _chosen(self, wanted: Callable[[Coordinate], bool], by: Callable[[Coordinate], int]) -> tuple[int, ...]:
        ranks = (rank for rank, at in enumerate(self.coordinates) if wanted(at))
        return tuple(sorted(ranks, key=lambda rank: by(self.coordinates[rank])))

    # The generation view.

    @cached_property
    def generation_coordinates(self) -> tuple[Coordinate, ...]:
        """Coordinates of every rank in generation, by rank; `dp` is its replica's number."""
        return tuple(map(self.generation_coordinate, range(self.size)))

    def generation_coordinate(self, rank: int) -> Coordinate:
        """Return the coordinate of a rank in generation; `dp` is its replica's number."""
        at = self.coordinates[rank]
        t_g, p_g = self.generation_sizes
        per_t = self.tensor // t_g
        per_p = self.pipeline // p_g
        replica = (at.dp * self.context + at.cp) * per_t * per_p
        if not self.nested:
            micro, place = divmod(at.pp * self.tensor + at.tp, t_g * p_g)
            return Coordinate(place % t_g, place // t_g, replica + micro)
        return Coordinate(at.tp // per_t, at.pp // per_p, replica + (at.pp % per_p) * per_t + at.tp % per_t)

    def micro_dp_groups(self) -> list[list[int]]:
        """Group the ranks of a training replica that need one generation shard; if it nests, together they have it."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for rank, (at, made) in enumerate(zip(self.coordinates, self.generation_coordinates, strict=True)):
            groups.setdefault((at.dp, at.cp, made.tp, made.pp), []).append(rank)
        return list(groups.values())


def describe(layout: Layout) -> str:
    """Describe a layout in words."""
    text = f"{counted(layout.size, 'rank')}, tensor {layout.tensor} × pipeline {layout.pipeline} × data {layout.data}"
    text += f" × context {layout.context}" if layout.context > 1 else ""
    if layout.generation is None:
        return text
    t_g, p_g = layout.generation
    text += f"; generates as {counted(layout.replicas, 'replica')} of tensor {t_g} × pipeline {p_g}"
    return text if layout.nested else f"{text}, not nested"
