"""A weight-transfer engine, registered with vLLM, that takes this rank's own shards. No full tensor is ever needed.

It uses vLLM's layerwise reload, which also repacks weights where a backend keeps them packed (CPU) and keeps addresses
where something captured them (CUDA graphs). vLLM's loaders cut a full tensor by tensor rank; three notes make them take
a tensor that is cut already (vLLM 0.32; they go away when its loaders accept shards):
* parameters of linear layers: tensor rank 0, so that the cut starts at 0;
* biases: `is_sharded_weight`;
* vocabulary: a loader of ours, because vLLM's insists on the whole vocabulary. It writes in place: these are the
  largest weights, and the reload would have two more copies of them.
With tied embeddings the output layer has a packed weight of its own, which is packed last. Of a reload that broke, vLLM
would count the first shards of the next as the last of a layer, so what that one left is dropped.

Checksums are of a layer's parameters when they are whole, before a backend packs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import _place_kernel_tensors, get_layerwise_info
from vllm.model_executor.parameter import BasevLLMParameter

NAME = "hybridflow_shards"


@dataclass
class Nothing(WeightTransferInitInfo):
    """There is nothing to set up."""


@dataclass
class ShardStream(WeightTransferUpdateInfo):
    """Shards by Hugging Face name, taken one at a time.

    Attributes:
        checksum: of a tensor, if checksums are wanted.
        checksums: to be filled: of each parameter, by the names of the weights in it.
    """

    shards: Any = ()
    checksum: Callable[[Tensor], int] | None = None
    checksums: dict[tuple[str, ...], int] = field(default_factory=dict)


class ShardReceiver(WeightTransferEngine[Nothing, ShardStream]):
    """Takes a stream of shards into the local worker's model."""

    init_info_cls = Nothing
    update_info_cls = ShardStream

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Watch the layers; the shards come from this process, so nothing else is to be set up."""
        self._stream = ShardStream()
        self._names: list[str] = []
        self._sums: dict[tuple[torch.nn.Module, str], int] = {}
        for module in self.model.modules():
            if isinstance(method := getattr(module, "quant_method", None), QuantizeMethodBase):
                method.process_weights_after_loading = partial(self._whole, method.process_weights_after_loading)

    def start_weight_update(self) -> None:
        """Make the model ready to take shards."""
        _drop_broken_reload(self.model)
        initialize_layerwise_reload(self.model)
        _take_cut_vocabulary(self.model)
        self._marked = _take_cut_linears(self.model)

    def receive_weights(self, update_info: ShardStream) -> None:
        """Load every shard of the stream."""
        self._stream, self._names, self._sums = update_info, [], {}
        with torch.no_grad():
            self.model.load_weights(self._named(update_info.shards))

    def finish_weight_update(self) -> None:
        """Pack what has to be packed."""
        with torch.no_grad():
            finalize_layerwise_reload(self.model, self.vllm_config.model_config)
            for parameter in self._marked:
                parameter.is_sharded_weight = False
            if self._stream.checksum:
                self._stream.checksums.update(self._checksums(self._stream.checksum))
            self._stream = ShardStream()
            _pack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing is held."""

    def _named(self, shards: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, shard in shards:
            self._names.append(name)
            yield name, shard

    def _whole(self, process: Callable[[torch.nn.Module], None], layer: torch.nn.Module) -> None:
        """A layer has all its weights: in vLLM's own format, for the last time."""
        if checksum := self._stream.checksum:
            self._sums |= {(layer, name): checksum(value) for name, value in layer.named_parameters(recurse=False)}
        process(layer)

    def _checksums(self, checksum: Callable[[Tensor], int]) -> Iterator[tuple[tuple[str, ...], int]]:
        fused: dict[tuple[str, str], list[str]] = {}
        for name in self._names:
            path, _, kind = name.rpartition(".")
            fused.setdefault((_fused(self.model, path), kind), []).append(name)
        for (path, kind), names in fused.items():
            layer = self.model.get_submodule(path)
            found = self._sums.get((layer, kind))  # None: a norm, which is kept as it is loaded
            yield tuple(names), checksum(layer.get_parameter(kind)) if found is None else found


def register() -> None:
    """Make the engine known to vLLM; once a process."""
    if NAME not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(NAME, ShardReceiver)


def _drop_broken_reload(model: torch.nn.Module) -> None:
    for module in model.modules():
        info = get_layerwise_info(module)
        info.loaded_weights.clear()
        info.load_numel = 0


def _fused(model: Any, path: str) -> str:
    """The layer that vLLM has a Hugging Face layer in."""
    head, _, last = path.rpartition(".")
    for layer, parts in model.packed_modules_mapping.items():
        if last in parts:
            return f"{head}.{layer}"
    return path


def _take_cut_vocabulary(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding):
            info = get_layerwise_info(module)
            _place_kernel_tensors(module, info)
            info.reset()
            module.weight.weight_loader = partial(_load_cut_vocabulary, module)


def _load_cut_vocabulary(layer: torch.nn.Module, param: Tensor, shard: Tensor) -> None:
    """A weight loader of `layer`, which has no other weight."""
    rows = shard.shape[0]
    if rows > param.shape[0]:
        raise ValueError(f"a vocabulary shard of {rows} rows does not fit into {param.shape[0]}")
    param.data[:rows].copy_(shard)
    param.data[rows:].zero_()
    layer.quant_method.process_weights_after_loading(layer)


def _take_cut_linears(model: torch.nn.Module) -> list[Any]:
    """Returns the parameters whose mark outlives the reload and has to be taken off."""
    marked: list[Any] = []
    for module in model.modules():
        if not isinstance(module, LinearBase):
            continue
        for parameter in module._parameters.values():
            if isinstance(parameter, BasevLLMParameter):
                parameter.tp_rank = 0
            elif parameter is not None:
                parameter.is_sharded_weight = True
                marked.append(parameter)
    return marked


def _pack_tied_head(model: Any) -> None:
    head, inner = getattr(model, "lm_head", None), getattr(model, "model", None)
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and isinstance(head, VocabParallelEmbedding) and inner is not None:  # an earlier stage has no head
        head.quant_method.process_weights_after_loading(head)
