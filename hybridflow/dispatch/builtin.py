"""The paper's protocols (HybridFlow, table 3; its names in capitals are ours in small letters)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from hybridflow.dispatch.protocol import Call, Protocol, concat, count, register, take
from hybridflow.parallel.layout import Layout


@register("one_to_all")
class OneToAll(Protocol):
    """The same arguments to every rank, a list of every rank's output. For what all ranks do alike."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: list[Any]) -> Any:
        return outputs


@register("3d_proto")
class ThreeD(Protocol):
    """Rows split over data parallelism; results from (tensor 0, last stage) of each replica. For Megatron's work."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        parts = _split(call, layout.data)
        return [parts[at.dp] for at in layout.coordinates]

    def collect(self, layout: Layout, outputs: list[Any]) -> Any:
        heads = [r for r, at in enumerate(layout.coordinates) if at.tp == 0 and at.pp == layout.pipeline - 1]
        return concat([outputs[r] for r in sorted(heads, key=lambda r: layout.coordinates[r].dp)])


@register("3d_all_micro_dp")
class ThreeDAllMicroDP(Protocol):
    """Rows split over the generation replicas; results from (tensor 0, last stage) of each. For generation."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        parts = _split(call, layout.replicas)
        return [parts[layout.generation_coordinate(rank).dp] for rank in range(layout.size)]

    def collect(self, layout: Layout, outputs: list[Any]) -> Any:
        at = [layout.generation_coordinate(rank) for rank in range(layout.size)]
        heads = [r for r in range(layout.size) if at[r].tp == 0 and at[r].pp == layout.generation_sizes[1] - 1]
        return concat([outputs[r] for r in sorted(heads, key=lambda r: at[r].dp)])


@register("dp_proto")
class DP(Protocol):
    """Rows split over all ranks, whole groups together; results of all ranks. For work without a model's layout."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        return _split(call, layout.size, whole_groups=True)

    def collect(self, layout: Layout, outputs: list[Any]) -> Any:
        return concat(outputs)


def _split(call: Call, parts: int, *, whole_groups: bool = False) -> list[Call]:
    """Runs of rows, as even as whole rows (or whole groups) allow; a part may be empty."""
    rows = count(call)
    groups = getattr(call.rows(), "marks", {}).get("group_id") if whole_groups else None
    starts = np.arange(rows) if groups is None else _block_starts(groups)
    cuts = np.append(starts, rows)[len(starts) * np.arange(parts + 1) // parts]
    return [take(call, np.arange(a, b)) for a, b in pairwise(cuts)]


def _block_starts(groups: np.ndarray) -> np.ndarray:
    """Where a cut splits no group. Rows stay in order, so groups that lie in each other's rows make one block."""
    rows = np.arange(len(groups))
    _, number = np.unique(groups, return_inverse=True)
    last = np.zeros(len(groups), dtype=np.int64)
    last[number] = rows  # numpy keeps the last of several writes
    reach = np.maximum.accumulate(last[number])
    return rows[np.append(-1, reach[:-1])[: len(rows)] < rows]
