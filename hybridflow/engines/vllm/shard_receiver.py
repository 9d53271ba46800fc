"""Weight-transfer engine, registered with vLLM, that takes this rank's own shards. No full tensor is ever needed.

vLLM's loaders slice a full tensor by tensor rank, and copy the slice once more; a shard is written to where it
belongs at once. That is in place, so that addresses stay (CUDA graphs), but for what vLLM packs and keeps packed only
(linear layers on a CPU, vLLM 0.32): there it goes into a fresh parameter, which is packed when all of its layer has
come. With tied embeddings the output layer has a packed weight of its own, which is packed last.

A refit's proof is read last, when everything has come and is packed: parameters that are computed with as they are, and
through their layers the packed copies (`packed_copies`). Numbers that packing lets go are read while they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from hybridflow.engines.vllm import float32_copies, packed_copies
from hybridflow.engines.weight_readings import WeightReadings

NAME = "hybridflow_shards"


@dataclass
class Nothing(WeightTransferInitInfo):
    """There is nothing to set up."""


@dataclass
class ShardStream(WeightTransferUpdateInfo):
    """Shards by Hugging Face name, taken one at a time.

    Attributes:
        version: that they bring.
        readings: to be filled, if there are any.
    """

    shards: Any = ()
    version: int = 0
    readings: WeightReadings | None = None


@dataclass(frozen=True)
class Place:
    """Location of a shard in vLLM's model.

    Attributes:
        kind: of the layer's parameters: weight or bias.
        shape: of the parameter when it is not packed.
        rows: of it that are the shard's.
        together: the weights of the layer.
    """

    layer: torch.nn.Module
    kind: str
    shape: torch.Size
    rows: slice
    together: int


class ShardReceiver(WeightTransferEngine[Nothing, ShardStream]):
    """Takes a stream of shards into the local worker's model."""

    init_info_cls = Nothing
    update_info_cls = ShardStream

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Look at the layers; the shards come from this process, so nothing else is to be set up."""
        _refuse_quantized(self.model)
        self._places: dict[str, Place] = {}
        self._came: dict[torch.nn.Module, list[str]] = {}  # of layers that are not whole yet
        # Of weights that only packed copies have now.
        self._let_go: dict[torch.nn.Module, packed_copies.Columns] = {}
        self._stream = ShardStream()

    def start_weight_update(self) -> None:
        """Forget what came of an update that broke."""
        self._came.clear()
        self._let_go.clear()

    @torch.no_grad()
    def receive_weights(self, update_info: ShardStream) -> None:
        """Load every shard of the stream, which brings all weights of each of its layers.

        Raises RuntimeError if it does not, ValueError for a shard that does not fit.
        """
        self._stream = update_info
        for name, shard in update_info.shards:
            place = self._places.get(name) or self._places.setdefault(name, _place(self.model, name))
            _write(place, name, shard)
            del shard  # before the next one is made
            came = self._came.setdefault(place.layer, [])
            came.append(name)
            if len(came) == place.together:
                self._whole(self._came.pop(place.layer))
        if self._came:
            alone = ", ".join(name for names in self._came.values() for name in names)
            raise RuntimeError(f"of the layers of {alone} not all weights have come")

    @torch.no_grad()
    def finish_weight_update(self) -> None:
        """Pack a tied output layer, and read what will be computed with."""
        if (head := _tied_head(self.model)) is not None:
            self._pack(head)
        if self._stream.readings:
            self._read(self._stream.readings)
        self._stream = ShardStream()
        self._let_go.clear()

    def shutdown(self) -> None:
        """Release nothing: nothing was taken."""

    def _whole(self, names: list[str]) -> None:
        """Finish a layer that has all its weights."""
        layer = self._places[names[0]].layer
        written = {kind: parameter.detach() for kind, parameter in layer.named_parameters(recurse=False)}
        if layer is not _tied_head(self.model):
            self._pack(layer)
        if self._stream.readings:
            self._read_what_goes(layer, names, written, self._stream.readings)

    def _pack(self, layer: Any) -> None:
        """Prepare a layer for products. An embedding keeps its weight, which tokens are looked up in.

        A compiled model goes on with the products that it was traced with, so it gets no others.
        """
        embeds = isinstance(layer, VocabParallelEmbedding)
        if not (self.model_config.enforce_eager and float32_copies.wanted(layer)):
            if method := getattr(layer, "quant_method", None):  # a norm has none
                method.process_weights_after_loading(layer)
        elif not embeds or layer is getattr(self.model, "lm_head", None):
            float32_copies.copy(layer, keeps_weight=embeds)

    def _read_what_goes(
        self, layer: torch.nn.Module, names: list[str], written: Mapping[str, Tensor], readings: WeightReadings
    ) -> None:
        """Read what a layer that is packed has no more: its weight, or a bias in the format that was written."""
        for name in names:
            kind, rows = self._places[name].kind, self._places[name].rows
            now = layer.get_parameter(kind)
            if (now.shape, now.dtype) != (written[kind].shape, written[kind].dtype):
                readings.read(name, written[kind][rows])
        if layer.get_parameter("weight").shape != written["weight"].shape:
            with readings.timed():
                self._let_go[layer] = packed_copies.read_columns(written["weight"], self._stream.version)

    def _read(self, readings: WeightReadings) -> None:
        """Read all parameters that are there, and compare packed copies with what they were made of."""
        names: dict[torch.nn.Module, list[str]] = {}
        for name, place in self._places.items():
            names.setdefault(place.layer, []).append(name)
            parameter = place.layer.get_parameter(place.kind)
            if name not in readings.found and parameter.shape == place.shape:
                readings.read(name, parameter[place.rows])
        if (head := _tied_head(self.model)) is not None:
            embedding = self.model.model.embed_tokens
            names[head] = names.get(embedding, [])
            for name in names[head] if head.weight is not embedding.weight else ():
                readings.refuse(name)
        for layer in packed_copies.multiplying(self.model):
            with readings.timed():
                columns = self._let_go.get(layer)
                if columns is None and layer.weight.numel():
                    columns = packed_copies.read_columns(layer.weight, self._stream.version)
                wrong = columns is not None and packed_copies.differs(layer, columns)
            for name in names.get(layer, ()) if wrong else ():
                readings.refuse(name)


def register() -> None:
    """Make the engine known to vLLM; once a process."""
    if NAME not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(NAME, ShardReceiver)


def weight_bytes(model: torch.nn.Module) -> int:
    """Count the bytes of a model's parameters as they were loaded, also where a packed form has taken their place."""
    sizes = {
        id(parameter): _shape(layer, kind).numel() * parameter.itemsize
        for layer in model.modules()
        for kind, parameter in layer.named_parameters(recurse=False)
    }
    return sum(sizes.values())


def _refuse_quantized(model: torch.nn.Module) -> None:
    plain = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
    for name, module in model.named_modules():
        if isinstance(module, (LinearBase, VocabParallelEmbedding)) and not isinstance(module.quant_method, plain):
            raise TypeError(f"{name} is quantized ({module.quant_method}); a refit brings plain numbers only")


def _place(model: Any, name: str) -> Place:
    """Locate a Hugging Face weight inside vLLM's fused layer."""
    path, _, kind = name.rpartition(".")
    head, _, last = path.rpartition(".")
    for fused, parts in model.packed_modules_mapping.items():
        if last in parts:
            layer = model.get_submodule(f"{head}.{fused}")
            sizes = layer.output_partition_sizes
            number = parts.index(last)
            rows = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
            return Place(layer, kind, _shape(layer, kind), rows, len(parts) * _kinds(layer))
    layer = model.get_submodule(path)
    shape = _shape(layer, kind)
    return Place(layer, kind, shape, slice(0, shape[0]), _kinds(layer))


def _kinds(layer: torch.nn.Module) -> int:
    return len(list(layer.parameters(recurse=False)))


def _shape(layer: torch.nn.Module, kind: str) -> torch.Size:
    """Return the shape of a parameter before it was packed."""
    unpacked = get_layerwise_info(layer).restore_metadata[0]
    return unpacked.get(kind, layer.get_parameter(kind)).shape


def _write(place: Place, name: str, shard: Tensor) -> None:
    """Write a shard. Rows past those of a vocabulary are padding."""
    layer = place.layer
    parameter = place.layer.get_parameter(place.kind)
    if parameter.shape != place.shape:
        parameter = torch.nn.Parameter(shard.new_empty(place.shape), requires_grad=False)
        setattr(layer, place.kind, parameter)
    target = parameter[place.rows]
    padded = isinstance(layer, VocabParallelEmbedding) and len(shard) < len(target)
    if shard.shape != (target[: len(shard)] if padded else target).shape:
        raise ValueError(f"{name}: a shard of {tuple(shard.shape)} does not fit into {tuple(target.shape)}")
    target[: len(shard)].copy_(shard)
    target[len(shard) :].zero_()


def _tied_head(model: Any) -> Any:
    """Return the output layer that is tied to the embedding; None on an earlier stage, and of a model without one."""
    head = getattr(model, "lm_head", None)
    inner = getattr(model, "model", None)
    tied = getattr(model.config, "tie_word_embeddings", False)
    return head if tied and isinstance(head, VocabParallelEmbedding) and inner is not None else None
