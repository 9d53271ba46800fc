"""The paper's protocols (HybridFlow, table 3; its names in capitals are ours in small letters), and three of ours."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from hybridflow.dispatch.protocol import Call, Protocol, register
from hybridflow.dispatch.rows import concat, split
from hybridflow.parallel.layout import Layout


@register("one_to_all")
class OneToAll(Protocol):
    """The same arguments to every rank, a list of every rank's output. For what all ranks do alike."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return list(outputs)


@register("rank_zero")
class RankZero(Protocol):
    """Everything to rank 0, its output back; no other rank is called. For what needs one process."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [call, *[None] * (layout.size - 1)]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return outputs[0]


@register("all_to_all")
class AllToAll(Protocol):
    """Every argument is a list with one value a rank; a list of every rank's output. For debugging."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        for value in (*call.args, *call.kwargs.values()):
            if not isinstance(value, (list, tuple)) or len(value) != layout.size:
                size = f"{len(value)} values" if isinstance(value, (list, tuple)) else type(value).__name__
                raise ValueError(f"all_to_all wants a list of {layout.size} values, one a rank; it was given {size}")
        return [call.map(itemgetter(rank)) for rank in range(layout.size)]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return list(outputs)


@register("3d_proto")
class ThreeD(Protocol):
    """Rows split over data parallelism; results from (tensor 0, last stage) of each replica. For Megatron's work."""

    balance = "rows"

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        parts = split(call, layout.data, balance=self.balance)
        return [parts[at.dp] for at in layout.coordinates]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat([outputs[rank] for rank in layout.output_ranks])


@register("dp_tokens")
class DPTokens(ThreeD):
    """As `3d_proto`, but the rows go where they make the replicas' tokens even. For work that costs by the token.

    With several replicas the call waits until the lengths of its rows are known: until they have been generated.
    """

    balance = "tokens"


@register("metrics")
class MetricsOut(ThreeD):
    """As `3d_proto`; each rank returns `Metrics`, and the result is one: means by their weights, sums, maxima."""

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        found = super().collect(layout, outputs)
        if isinstance(found, list):
            raise TypeError(f"metrics wants every rank to return Metrics; one returned {type(found[0]).__name__}")
        return found


@register("3d_all_micro_dp")
class ThreeDAllMicroDP(Protocol):
    """Rows split over the generation replicas; results from (tensor 0, last stage) of each. For generation."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        parts = split(call, layout.replicas)
        return [parts[at.dp] for at in layout.generation_coordinates]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat([outputs[rank] for rank in layout.generation_output_ranks])


@register("3d_pp_only")
class ThreeDPPOnly(Protocol):
    """The same arguments to every rank; results from (tensor 0, data 0) of each pipeline stage, end to end.

    For what is cut over stages: the names of weights.
    """

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        found = [outputs[rank] for rank in layout.stage_ranks]
        return [item for part in found for item in part] if all(isinstance(p, list) for p in found) else concat(found)


@register("dp_proto")
class DP(Protocol):
    """Rows split over all ranks, whole groups together; results of all ranks. For work without a model's layout."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return split(call, layout.size, whole_groups=True)

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat(outputs)
