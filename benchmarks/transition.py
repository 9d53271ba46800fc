"""What ranks run for `benchmarks.resharding`: one transition of weights, done in five ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.models import Weight, table
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups, make_groups
from hybridflow.resharding.live_bytes import Alive
from hybridflow.resharding.plan import make_plan
from hybridflow.resharding.plan.buckets import BUCKET_BYTES
from hybridflow.resharding.refit import Refit
from hybridflow.resharding.transport import Transport
from tests.resharding.counting import CountingGroup
from tests.resharding.plan.simulate import shardings

DTYPE = torch.float32
_kept: list[VllmEngine] = []  # an engine that goes ends torch's groups with its own


class Ways:
    """Both engines of one rank, and the ways to bring the weights of one to the other.

    Args:
        folder: of a Hugging Face model, for which `layout` nests.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        groups = _groups(layout)
        self.rank, self._version = groups.rank, 0
        self._megatron = MegatronEngine(folder, groups, dtype=DTYPE, budget=64)
        self._shape = self._megatron.shape
        self._vllm, self._reloaded = _vllm(folder, layout), _vllm(folder, layout)
        self.refit = self._refit(groups, "hybrid")
        self._naive = self._refit(_groups(replace(layout, nested=False)), "hybrid_v")
        assert self._naive.weights.keys() == self.refit.weights.keys(), "its places are in other stages"
        self._whole = Transport(
            self._refit(groups, "full_gather").plan.exchange(self.rank), self._megatron.weights, groups.replica,
            DTYPE, platform().device,
        )  # fmt: skip
        flat = make_plan(
            shardings(self._shape, layout), layout, itemsize=DTYPE.itemsize, bucket_bytes=BUCKET_BYTES, method="ds_chat"
        )
        self._flat = Transport(
            flat.exchange(self.rank), _Flat(folder, self.rank, layout.size),
            groups.everyone, DTYPE, platform().device,
        )  # fmt: skip
        self._weights = {weight.name: weight for weight in table(self._shape)}
        self._bare = _Bare(self.refit, self._vllm)

    def ours(self) -> None:
        """As a run does it."""
        self.refit(self._vllm, self._next())

    def hybrid_v(self) -> None:
        """Refit as the paper's HybridFlow-V: the training replica gathers the model, and each rank takes its slice."""
        self._naive(self._vllm, self._next())

    def ds_chat(self, **options: Any) -> None:
        """All ranks gather the model, of which each holds a part of the numbers; each takes its slice."""
        self._vllm.update_weights(self._slices(), self._next(), **options)

    def check(self) -> None:
        """Check that ours and `ds_chat` leave vLLM with the same numbers."""
        mine, other = (WeightReadings(self.refit.fingerprint) for _ in range(2))
        self._vllm.update_weights(self.refit.transport.shards(Alive()), self._next(), readings=mine)
        self.ds_chat(readings=other)
        assert mine.found and mine.found == other.found, f"rank {self.rank} holds other weights by ds_chat"

    def reload(self) -> None:
        """Gather the model in the training replica; vLLM's own reload takes full tensors.

        It is an engine of its own, and its weights are not looked at: a bucket of a pipeline's can be overwritten
        before vLLM, which waits for all of a layer, has read it.
        """
        self._reloaded._call("reload_weights", weights_iterator=self._whole.shards(Alive()))
        self._reloaded._llm.reset_prefix_cache()

    def bare(self) -> None:
        """Move the same bytes without names, then copy once into vLLM."""
        self._bare()

    def forget(self) -> None:
        """vLLM has one set of groups a process, and the next layout wants others."""
        from vllm.distributed import parallel_state

        for vllm in (self._vllm, self._reloaded):
            vllm._llm.apply_model(_empty)
            _kept.append(vllm)
        parallel_state.destroy_model_parallel()

    def _refit(self, groups: Groups, method: str) -> Refit:
        return Refit(shardings(self._shape, groups.layout), groups, self._megatron, DTYPE, method=method)

    def _next(self) -> int:
        self._version += 1
        return self._version

    def _slices(self) -> Iterator[tuple[str, Tensor]]:
        for name, flat in self._flat.shards(Alive()):
            if name in self.refit.weights:
                weight, (a, b) = self._weights[name], self.refit.weights[name]
                yield name, flat.view(weight.shape).narrow(weight.axis or 0, a, b - a)


class _Flat:
    """ZeRO-3's shards: of each weight, as one row of numbers, this rank's part."""

    def __init__(self, folder: Path, rank: int, ranks: int) -> None:
        self._components = {}
        for name, whole in load_file(folder / "model.safetensors").items():
            size = whole.numel()
            self._components[name] = whole.flatten()[size * rank // ranks : size * (rank + 1) // ranks].clone()

    def shard(self, weight: Weight) -> Tensor:
        """See `Shards`."""
        return self._components[weight.name]


class _Bare:
    """One all-gather a bucket of as many numbers as the plan moves, and one copy into each of vLLM's parameters.

    vLLM then packs what it packs. A tied output layer has no weight of its own, but it packs the embedding once more.
    """

    def __init__(self, refit: Refit, vllm: VllmEngine) -> None:
        from vllm.model_executor.layers.linear import LinearBase
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        self._group = refit.transport.group
        buckets = [bucket.size for bucket in refit.transport.exchange.buckets if bucket.size]
        ranks = self._group.size() if self._group else 1
        self._gathers = [(torch.ones(size // ranks), torch.empty(size // ranks * ranks)) for size in buckets]
        [model] = vllm._llm.apply_model(lambda model: model)
        self._linear, self._packed = LinearBase, (LinearBase, VocabParallelEmbedding)
        self._head = model.lm_head if model.config.tie_word_embeddings else None
        self._copies = [
            (module, torch.ones(shaped.shape, dtype=shaped.dtype))
            for module in model.modules()
            for shaped in get_layerwise_info(module).restore_metadata[0].values()
        ]

    @torch.no_grad()
    def __call__(self) -> None:
        """Leaves vLLM with weights of no meaning."""
        for given, taken in self._gathers:
            dist.all_gather_into_tensor(taken, given, group=self._group)
        for module, source in self._copies:
            if isinstance(module, self._linear):  # of which vLLM keeps the packed weight alone
                module.weight = nn.Parameter(torch.empty_like(source), requires_grad=False)
            if module is not self._head:
                module.weight.copy_(source)
            if isinstance(module, self._packed):
                module.quant_method.process_weights_after_loading(module)


def _empty(model: nn.Module) -> None:
    for module in model.modules():
        module._parameters.clear()
        vars(module).pop("cpu_linear", None)  # what was packed


@cache
def _groups(layout: Layout) -> Groups:
    return make_groups(layout, timeout_s=600)


def _vllm(folder: Path, layout: Layout) -> VllmEngine:
    sizes = RolloutConfig(max_sequence_tokens=64, max_concurrent_rows=16, kv_cache_gib=0.05)
    return VllmEngine(folder, layout, sizes, dtype="float32", seed=0, stop_ids=[0])


def measure(folder: Path, layout: Layout, rounds: int) -> dict[str, Any]:
    """Seconds of each way, in turn, on this rank until all are through; and what ours moves and holds."""
    ways = Ways(folder, layout)
    ways.check()
    names = ["ours", "hybrid_v", "ds_chat", "reload", "bare"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):  # the first is a warm-up
        for name in names[:: -1 if turn % 2 else 1]:
            taken = _timed(getattr(ways, name))
            if turn >= 0:
                seconds[name].append(taken)
    found = {"seconds": seconds} | _counted(ways)
    ways.forget()
    return found


def _timed(work: Callable[[], None]) -> float:
    dist.barrier()
    begin = perf_counter()
    work()
    dist.barrier()
    return perf_counter() - begin


def _counted(ways: Ways) -> dict[str, Any]:
    """Bytes of payload that came to this rank, as an instrumented process group counts them, and as planned."""
    transport, plan = ways.refit.transport, ways.refit.plan
    counting = CountingGroup(transport.group) if transport.group else None
    ways.refit.transport = replace(transport, group=counting)
    ways.ours()
    return {
        "received": counting.received if counting else 0,
        "apart": plan.outside_formula[ways.rank],
        "peak": ways.refit.peak_bytes,
    }
