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
    """Sends the same arguments to every rank and returns a list of every rank's output. For what all ranks do alike."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return list(outputs)


@register("rank_zero")
class RankZero(Protocol):
    """Sends everything to rank 0 and returns its output; no other rank is called. For what needs one process."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call | None]:
        return [call, *[None] * (layout.size - 1)]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return outputs[0]


@register("all_to_all")
class AllToAll(Protocol):
    """Sends each rank its entry of every argument, a list, and returns a list of every rank's output. For debugging."""

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
    """Splits rows over data parallelism; results are from (tensor 0, last stage) of each replica. For Megatron."""

    balance = "rows"

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        parts = split(call, layout.data, balance=self.balance)
        return [parts[at.dp] for at in layout.coordinates]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat([outputs[rank] for rank in layout.output_ranks])


@register("dp_tokens")
class DPTokens(ThreeD):
    """Splits as `3d_proto`, but so that the replicas' tokens are even. For work that costs by the token.

    With several replicas the call waits until the lengths of its rows are known: until they have been generated.
    """

    balance = "tokens"


@register("metrics")
class MetricsOut(ThreeD):
    """Splits as `3d_proto`; ranks return `Metrics`, which are joined: means by their weights, sums, maxima."""

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        collected = super().collect(layout, outputs)
        if isinstance(collected, list):
            raise TypeError(f"metrics wants every rank to return Metrics; one returned {type(collected[0]).__name__}")
        return collected


@register("3d_all_micro_dp")
class ThreeDAllMicroDP(Protocol):
    """Splits rows over the generation replicas; results are from (tensor 0, last stage) of each. For generation."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        parts = split(call, layout.replicas)
        return [parts[at.dp] for at in layout.generation_coordinates]

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat([outputs[rank] for rank in layout.generation_output_ranks])


@register("3d_pp_only")
class ThreeDPPOnly(Protocol):
    """Sends the same arguments to every rank; results are from (tensor 0, data 0) of each pipeline stage, end to end.

    For what is split over stages: the names of weights.
    """

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return [call] * layout.size

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        by_stage = [outputs[rank] for rank in layout.stage_ranks]
        if all(isinstance(output, list) for output in by_stage):
            return [item for output in by_stage for item in output]
        return concat(by_stage)


@register("dp_proto")
class DP(Protocol):
    """Splits rows over all ranks, whole groups together; all ranks give results. For work without a model's layout."""

    def distribute(self, layout: Layout, call: Call) -> Sequence[Call]:
        return split(call, layout.size, whole_groups=True)

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return concat(outputs)
