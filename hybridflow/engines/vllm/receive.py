"""A weight-transfer engine, registered with vLLM, that takes this rank's own shards. No full tensor is ever needed.

It uses vLLM's layerwise reload, which also repacks weights where a backend keeps them packed (CPU) and keeps addresses
where something captured them (CUDA graphs). vLLM's loaders cut a full tensor by tensor rank; three notes make them take
a tensor that is cut already (vLLM 0.32; they go away when its loaders accept shards):
* parameters of linear layers: tensor rank 0, so that the cut starts at 0;
* biases: `is_sharded_weight`;
* vocabulary: a loader of ours, because vLLM's insists on the whole vocabulary.
With tied embeddings the reload leaves the output layer's packed weight behind, so it is packed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.parameter import BasevLLMParameter

NAME = "hybridflow_shards"


@dataclass
class Nothing(WeightTransferInitInfo):
    """There is nothing to set up."""


@dataclass
class ShardStream(WeightTransferUpdateInfo):
    """Shards by Hugging Face name, taken one at a time."""

    shards: Any = None


class ShardReceiver(WeightTransferEngine[Nothing, ShardStream]):
    """Takes a stream of shards into the local worker's model."""

    init_info_cls = Nothing
    update_info_cls = ShardStream

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to do: the shards come from this process."""

    def start_weight_update(self) -> None:
        """Make the model ready to take shards."""
        _take_cut_vocabulary(self.model)
        initialize_layerwise_reload(self.model)
        self._marked = _take_cut_linears(self.model)

    def receive_weights(self, update_info: ShardStream) -> None:
        """Load every shard of the stream."""
        shards: Iterable[tuple[str, Tensor]] = update_info.shards
        with torch.no_grad():
            self.model.load_weights(iter(shards))

    def finish_weight_update(self) -> None:
        """Pack what has to be packed."""
        with torch.no_grad():
            finalize_layerwise_reload(self.model, self.vllm_config.model_config)
            for parameter in self._marked:
                parameter.is_sharded_weight = False
            _pack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing is held."""


def register() -> None:
    """Make the engine known to vLLM; once a process."""
    if NAME not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(NAME, ShardReceiver)


def _take_cut_vocabulary(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding):
            for parameter in get_layerwise_info(module).restore_metadata[0].values():
                parameter.weight_loader = _load_cut_vocabulary


def _load_cut_vocabulary(param: Tensor, loaded_weight: Tensor) -> None:
    """A weight loader; vLLM binds its arguments by these names."""
    rows = loaded_weight.shape[0]
    if rows > param.shape[0]:
        raise ValueError(f"a vocabulary shard of {rows} rows does not fit into {param.shape[0]}")
    param.data[:rows].copy_(loaded_weight)
    param.data[rows:].zero_()


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
    if head is None or inner is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    head.weight = inner.embed_tokens.weight
    head.quant_method.process_weights_after_loading(head)
