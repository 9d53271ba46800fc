"""Weights between a Hugging Face folder and this rank's Megatron parameters. A rank reads only its slices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hybridflow.models import Shape, Weight, hf_view, table
from hybridflow.models.weights import LAST
from hybridflow.parallel.groups import Groups

INDEX = "model.safetensors.index.json"


class LocalWeights:
    """This rank's parameters by the names of the weight table.

    Attributes:
        shape: of the whole model.
        entries: the weights that this rank's pipeline stage holds, in the table's order.
    """

    def __init__(self, model: GPTModel, shape: Shape, groups: Groups, *, head: str = "lm") -> None:
        self.shape, self.groups, self.head = shape, groups, head
        self._params = dict(model.named_parameters())
        layout = groups.layout
        self._first_layer = groups.at.pp * shape.layers // layout.pipeline
        weights = table(shape, layout.tensor, head=head)
        self.entries = [w for w in weights if w.stage(shape.layers, layout.pipeline) == groups.at.pp]
        self._mark_cut()

    def shard(self, weight: Weight) -> Tensor:
        """This rank's part of a weight, as `hf_view` gives it: a view of the parameter."""
        return hf_view(self._param(weight).data, weight, self.groups.layout.tensor, self.groups.at.tp)

    def _mark_cut(self) -> None:
        """Tell Megatron which parameters are cut: it does so itself only where it also initialises them.

        Without the mark the gradient norm counts the parts of tensor rank 0 alone.
        """
        for weight in [*self.entries, *self._tied_copy()]:
            param = self._param(weight)
            if weight.axis is not None and not hasattr(param, "tensor_model_parallel"):
                set_tensor_model_parallel_attributes(param, True, weight.axis, 1)

    def load(self, folder: str | Path) -> None:
        """Fill the parameters. A critic's head, which a causal model does not have, starts at zero.

        Raises KeyError naming a tensor that the folder lacks, ValueError for one of another shape.
        """
        files = _files(Path(folder))
        with torch.no_grad():
            for weight in [*self.entries, *self._tied_copy()]:
                if weight.name == "value_head.weight" and weight.name not in files:
                    continue
                self._load_one(weight, files)

    def _load_one(self, weight: Weight, files: dict[str, Path]) -> None:
        if weight.name not in files:
            raise KeyError(f"the model folder has no tensor {weight.name!r}")
        with safe_open(files[weight.name], framework="pt") as reader:
            source = reader.get_slice(weight.name)
            if tuple(source.get_shape()) != weight.shape:
                raise ValueError(
                    f"{weight.name}: shape {source.get_shape()} in the folder, {weight.shape} by config.json"
                )
            a, b = weight.span(self.groups.layout.tensor, self.groups.at.tp)
            values = source[:, a:b] if weight.axis == 1 else source[a:b]
        target = self.shard(weight)
        target.copy_(values.reshape(target.shape))
        if weight.padded is not None:  # rows past the vocabulary
            self._param(weight).data[b - a :].zero_()

    def _tied_copy(self) -> list[Weight]:
        """With tied embeddings the last stage of a pipeline has a copy for its output layer."""
        stages = self.groups.layout.pipeline
        if not self.shape.tied or self.head != "lm" or stages == 1 or not self.groups.last_stage:
            return []
        first = table(self.shape, self.groups.layout.tensor)[0]
        return [Weight(first.name, first.shape, "output_layer.weight", LAST, first.axis, padded=first.padded)]

    def _param(self, weight: Weight) -> torch.nn.Parameter:
        name = weight.param
        if isinstance(weight.place, int):
            name = name.replace(f"layers.{weight.place}.", f"layers.{weight.place - self._first_layer}.", 1)
        return self._params[name]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of this stage whole, one at a time, on all its tensor ranks."""
        group, tensor = self.groups.megatron.tp, self.groups.layout.tensor
        for weight in self.entries:
            mine = self.shard(weight).reshape(weight.shard_shape(tensor, self.groups.at.tp))
            if weight.axis is None or tensor == 1:
                yield weight.name, mine.contiguous()
                continue
            largest = mine.new_zeros(weight.shard_shape(tensor, 0))
            largest.narrow(weight.axis, 0, mine.shape[weight.axis]).copy_(mine)
            parts = [torch.empty_like(largest) for _ in range(tensor)]
            dist.all_gather(parts, largest, group=group)
            sizes = [weight.shard_shape(tensor, rank)[weight.axis] for rank in range(tensor)]
            yield (
                weight.name,
                torch.cat([p.narrow(weight.axis, 0, n) for p, n in zip(parts, sizes, strict=True)], weight.axis),
            )

    def export(self, folder: str | Path, source: str | Path) -> None:
        """Write a Hugging Face folder: one file a pipeline stage, config and tokenizer as in `source`.

        All ranks call it; (tensor 0, data 0) of each stage writes. Ranks of several nodes need a shared file system.
        """
        out, at, stages = Path(folder), self.groups.at, self.groups.layout.pipeline
        writer = at.tp == 0 and at.dp == 0
        tensors = {name: tensor.cpu().clone() if writer else None for name, tensor in self.gathered()}
        if writer:
            out.mkdir(parents=True, exist_ok=True)
            save_file({k: v for k, v in tensors.items() if v is not None}, out / _file(at.pp, stages), {"format": "pt"})
        if self.groups.rank == 0:
            _copy_extras(Path(source), out)
            if stages > 1:
                self._write_index(out, stages)
        dist.barrier(group=self.groups.megatron.intra_dist_opt)

    def _write_index(self, out: Path, stages: int) -> None:
        weights = table(self.shape, self.groups.layout.tensor, head=self.head)
        place = {w.name: _file(w.stage(self.shape.layers, stages), stages) for w in weights}
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}, indent=1))


def _file(stage: int, stages: int) -> str:
    return "model.safetensors" if stages == 1 else f"model-{stage + 1:05d}-of-{stages:05d}.safetensors"


def _files(folder: Path) -> dict[str, Path]:
    """Tensor name to its file."""
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text())["weight_map"]
        return {name: folder / file for name, file in named.items()}
    with safe_open(folder / "model.safetensors", framework="pt") as reader:
        return dict.fromkeys(reader.keys(), folder / "model.safetensors")


def _copy_extras(source: Path, out: Path) -> None:
    """Config and tokenizer: everything small beside the weights."""
    for file in source.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copy2(file, out / file.name)
