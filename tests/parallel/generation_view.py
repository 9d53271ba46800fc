"""The generation view of a layout as groups of ranks, which the library itself has no use for."""

from __future__ import annotations

from hybridflow.parallel.layout import Layout


def generation_groups(layout: Layout, axis: str) -> list[list[int]]:
    """The `tp` or `pp` groups of the generation view, each in the order of its coordinate on that axis."""
    others = "pp" if axis == "tp" else "tp"
    groups: dict[tuple[int, int], list[int]] = {}
    for rank, at in enumerate(layout.generation_coordinates):
        groups.setdefault((at.dp, getattr(at, others)), []).append(rank)
    return [sorted(g, key=lambda rank: getattr(layout.generation_coordinates[rank], axis)) for g in groups.values()]
