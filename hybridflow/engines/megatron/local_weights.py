"""Weights between a Hugging Face folder and this rank's Megatron parameters. A rank reads only its slices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from safetensors.torch import save_file
from torch import Tensor

from hybridflow.engines.megatron.sharding import MegatronSharding, parameter
from hybridflow.models import Along, Weight, model_export, table
from hybridflow.models.weight_files import INDEX, SINGLE, in_folder, read_slices, refuse_unread
from hybridflow.parallel.process_groups import Groups


class LocalWeights:
    """Parameters of this rank by the names of the weight table.

    Attributes:
        entries: the weights that this rank's pipeline stage saves and exports, in the table's order.
        slices: what this rank loads; with tied embeddings a last stage also reads its output layer.
    """

    def __init__(self, model: GPTModel, sharding: MegatronSharding, groups: Groups) -> None:
        self.sharding = sharding
        self.groups = groups
        self._params = dict(model.named_parameters())
        self._first_layer = groups.at.pp * sharding.shape.layers // sharding.pipeline
        self.slices = sharding.slices(groups.at)
        self.entries = [weight for weight in sharding.weights(groups.at) if not weight.is_tied_copy]
        self._mark_sharded()

    def shard(self, weight: Weight) -> Tensor:
        """Return this rank's part of a weight: a view of the parameter."""
        return self.view(self.param(weight).data, weight)

    def view(self, values: Tensor, weight: Weight) -> Tensor:
        """Return a weight's part of anything that has its parameter's shape; see `MegatronSharding.hf_view`."""
        return self.sharding.hf_view(values, weight, self.groups.at)

    @cached_property
    def nbytes(self) -> int:
        """Bytes with padding; without gradients and what an optimizer holds."""
        return sum(param.nbytes for param in self._params.values())

    def _mark_sharded(self) -> None:
        """Tell Megatron which parameters are sharded: it does so itself only where it also initializes them.

        Without the mark the gradient norm counts the parts of tensor rank 0 alone.
        """
        for weight in (part.weight for part in self.slices):
            param = self.param(weight)
            if weight.axis is not None and not hasattr(param, "tensor_model_parallel"):
                set_tensor_model_parallel_attributes(param, True, weight.axis, 1)

    @torch.no_grad()
    def load(self, folder: str | Path) -> None:
        """Fill the parameters, a slice at a time. A scalar head that the folder lacks stays as it is, zero.

        Raises as `refuse_unread` and `read_slices`.
        """
        shape = self.sharding.shape
        refuse_unread(folder, shape, head=self.sharding.head)
        for part, values in read_slices(folder, in_folder(shape, self.slices)):
            target = self.shard(part.weight)
            target.copy_(values.reshape(target.shape))
            if part.weight.along is Along.vocabulary:  # rows past it are padding
                self.param(part.weight)[values.shape[0] :].zero_()

    def param(self, weight: Weight) -> torch.nn.Parameter:
        """Return Megatron's parameter that a weight of this stage lives in."""
        return self._params[parameter(weight, self._first_layer)]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight of this stage whole, one at a time, on all its tensor ranks."""
        for weight in self.entries:
            regions = [self.sharding.region(weight, at) or (0, 0) for at in self.sharding.holders(weight)]
            sizes = [b - a for a, b in regions]
            mine = self.shard(weight).reshape(weight.with_length(sizes[self.groups.at.tp]))
            if weight.axis is None or len(sizes) == 1:
                yield weight.name, mine.contiguous()
                continue
            # All tensor ranks send equally much: of a padded vocabulary the last ones have less.
            padded = mine.new_zeros(weight.with_length(sizes[0]))
            padded.narrow(weight.axis, 0, mine.shape[weight.axis]).copy_(mine)
            parts = [torch.empty_like(padded) for _ in sizes]
            dist.all_gather(parts, padded, group=self.groups.tp)
            real = [part.narrow(weight.axis, 0, size) for part, size in zip(parts, sizes, strict=True)]
            yield weight.name, torch.cat(real, weight.axis)

    def export(self, folder: str | Path, source: str | Path) -> None:
        """Write a Hugging Face folder: one file a pipeline stage, and what belongs to a model of what is in `source`.

        It takes the place of an earlier one when it is whole (`hybridflow.models.model_export`). All ranks call it;
        (tensor 0, data 0) of each stage writes. Ranks of several nodes need a shared file system.
        """
        out = Path(folder).resolve()
        group = self.groups.everyone
        if self.groups.rank == 0:
            model_export.begin(out)
        dist.barrier(group=group)
        try:
            self._write_stage(model_export.beside(out))
            dist.barrier(group=group)
            if self.groups.rank == 0:
                self._write_extras(model_export.beside(out), Path(source))
        except BaseException:
            shutil.rmtree(model_export.beside(out), ignore_errors=True)  # a disk that is full need not stay so
            raise
        if self.groups.rank == 0:
            model_export.finish(out)
        dist.barrier(group=group)

    def _write_stage(self, out: Path) -> None:
        """Write a stage's weights: every rank gathers, one writes."""
        at = self.groups.at
        stages = self.groups.layout.pipeline
        writer = at.tp == 0 and at.dp == 0
        tensors = {name: tensor.cpu().clone() if writer else None for name, tensor in self.gathered()}
        if writer:
            file = out / _file(at.pp, stages)
            save_file({k: v for k, v in tensors.items() if v is not None}, file, {"format": "pt"})
            model_export.open_to_readers(file)

    def _write_extras(self, out: Path, source: Path) -> None:
        model_export.copy_extras(source, out)
        dtype = str(self.param(self.entries[0]).dtype).removeprefix("torch.")
        model_export.write_config(source, out, dtype=dtype, head=self.sharding.head)
        if self.groups.layout.pipeline > 1:
            self._write_index(out, self.groups.layout.pipeline)

    def _write_index(self, out: Path, stages: int) -> None:
        shape = self.sharding.shape
        weights = table(shape, head=self.sharding.head)
        place = {w.name: _file(w.stage(shape.layers, stages), stages) for w in weights}
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}, indent=1))


def _file(stage: int, stages: int) -> str:
    return SINGLE if stages == 1 else f"model-{stage + 1:05d}-of-{stages:05d}.safetensors"
