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

from hybridflow.models import ModelShape, Weight, hf_view, model_export, table
from hybridflow.models.weight_files import INDEX, SINGLE, in_folder, load_plan, read_slices, refuse_unread
from hybridflow.models.weight_table import stage_table
from hybridflow.parallel.process_groups import Groups


class LocalWeights:
    """Parameters of this rank by the names of the weight table.

    Attributes:
        shape: of the whole model.
        entries: the weights that this rank's pipeline stage holds, in the table's order.
        plan: the slices that this rank loads.
    """

    def __init__(self, model: GPTModel, shape: ModelShape, groups: Groups, *, head: str = "lm") -> None:
        self.shape, self.groups, self.head = shape, groups, head
        self._params = dict(model.named_parameters())
        layout = groups.layout
        self._first_layer = groups.at.pp * shape.layers // layout.pipeline
        self.plan = load_plan(shape, layout, groups.rank, head=head)
        self.entries = stage_table(shape, layout.tensor, layout.pipeline, groups.at.pp, head=head)
        self._mark_cut()

    def shard(self, weight: Weight) -> Tensor:
        """Return this rank's part of a weight, as `hf_view` gives it: a view of the parameter."""
        return hf_view(self.param(weight).data, weight, self.groups.layout.tensor, self.groups.at.tp)

    @cached_property
    def nbytes(self) -> int:
        """Count the bytes of the parameters, padding included; not their gradients, nor what an optimizer has."""
        return sum(param.nbytes for param in self._params.values())

    def _mark_cut(self) -> None:
        """Tell Megatron which parameters are cut: it does so itself only where it also initialises them.

        Without the mark the gradient norm counts the parts of tensor rank 0 alone.
        """
        for weight in (part.weight for part in self.plan):
            param = self.param(weight)
            if weight.axis is not None and not hasattr(param, "tensor_model_parallel"):
                set_tensor_model_parallel_attributes(param, True, weight.axis, 1)

    @torch.no_grad()
    def load(self, folder: str | Path) -> None:
        """Fill the parameters, a slice at a time. A scalar head that the folder lacks stays as it is, zero.

        Raises as `refuse_unread` and `read_slices`.
        """
        refuse_unread(folder, self.shape, head=self.head)
        for part, values in read_slices(folder, in_folder(self.shape, self.plan)):
            target = self.shard(part.weight)
            target.copy_(values.reshape(target.shape))
            if part.weight.padded is not None:  # rows past the vocabulary
                self.param(part.weight)[values.shape[0] :].zero_()

    def param(self, weight: Weight) -> torch.nn.Parameter:
        """Megatron's parameter that a weight of this stage lives in."""
        name = weight.param
        if isinstance(weight.place, int):
            name = name.replace(f"layers.{weight.place}.", f"layers.{weight.place - self._first_layer}.", 1)
        return self._params[name]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight of this stage whole, one at a time, on all its tensor ranks."""
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
        """Write a Hugging Face folder: one file a pipeline stage, and what belongs to a model of what is in `source`.

        It takes the place of an earlier one when it is whole (`hybridflow.models.model_export`). All ranks call it;
        (tensor 0, data 0) of each stage writes. Ranks of several nodes need a shared file system.
        """
        out, group = Path(folder).resolve(), self.groups.megatron.intra_dist_opt
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
        at, stages = self.groups.at, self.groups.layout.pipeline
        writer = at.tp == 0 and at.dp == 0
        tensors = {name: tensor.cpu().clone() if writer else None for name, tensor in self.gathered()}
        if writer:
            file = out / _file(at.pp, stages)
            save_file({k: v for k, v in tensors.items() if v is not None}, file, {"format": "pt"})
            model_export.open_to_readers(file)

    def _write_extras(self, out: Path, source: Path) -> None:
        model_export.copy_extras(source, out)
        dtype = str(self.param(self.entries[0]).dtype).removeprefix("torch.")
        model_export.write_config(source, out, dtype=dtype, head=self.head)
        if self.groups.layout.pipeline > 1:
            self._write_index(out, self.groups.layout.pipeline)

    def _write_index(self, out: Path, stages: int) -> None:
        weights = table(self.shape, self.groups.layout.tensor, head=self.head)
        place = {w.name: _file(w.stage(self.shape.layers, stages), stages) for w in weights}
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}, indent=1))


def _file(stage: int, stages: int) -> str:
    return SINGLE if stages == 1 else f"model-{stage + 1:05d}-of-{stages:05d}.safetensors"
