"""What a rank runs to count the bytes of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tensor_bytes import TensorBytes
from hybridflow.batch import Batch
from hybridflow.config.schema import DType, OptimizerConfig
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.parallel.layout import Layout
from tests.engines import rank_functions


def tensor_bytes(
    folder: Path, layout: Layout, batch: Batch, dtype: DType, distributed: bool, **options: Any
) -> dict[str, int]:
    """Return what an engine keeps after a step, and the most that it has in scoring and in the next step."""
    counter = TensorBytes()
    settings = OptimizerConfig(distributed=distributed)
    with counter.phase():
        made = rank_functions.trainer(folder, layout, settings, dtype=getattr(torch, dtype.value), **options)
        made.train(batch, _loss)
    kept = counter.now
    with counter.phase() as scoring:
        made.score(batch)
    with counter.phase() as training:
        made.train(batch, _loss)
    return {"kept": kept, "score": scoring["peak"], "train": training["peak"]}


def _loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
    return (outputs.log_probs.sum() + outputs.entropy.sum()) * 1e-3
