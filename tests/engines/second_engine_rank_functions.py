"""A second training engine beside Megatron's on the same rows, as ranks run it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.engines.base import TrainingEngine
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from tests.engines import rank_functions, reference
from tests.engines.transformers_engine import TransformersTrainer


class Compared(NamedTuple):
    """What both engines say, Megatron's first: before a step and after it, and of the step its gradient's norm."""

    before: tuple[np.ndarray, np.ndarray]
    norms: tuple[float, float]
    after: tuple[np.ndarray, np.ndarray]


def compared(folder: Path, layout: Layout, batch: Batch, head: Head) -> Compared:
    """Both engines on this rank's rows of a batch, from the same folder."""
    groups = rank_functions.groups_of(layout)
    rows = batch.select(list(range(groups.at.dp, len(batch), layout.data)))
    engines: list[TrainingEngine] = [
        rank_functions.trainer(folder, layout, reference.SETTINGS, head=head),
        TransformersTrainer(str(folder), groups, head, reference.SETTINGS, 100),
    ]
    before = [_said(engine, rows, head) for engine in engines]
    results = [engine.train(rows, partial(_loss, rows, head)) for engine in engines]
    assert all(result.applied and result.lr == reference.SETTINGS.lr for result in results)
    after = [_said(engine, rows, head) for engine in engines]
    norms = results[0].grad_norm, results[1].grad_norm
    return Compared((before[0], before[1]), norms, (after[0], after[1]))


def _said(engine: TrainingEngine, rows: Batch, head: Head) -> np.ndarray:
    if head is Head.reward:
        scores = engine.score_rows(rows)
        assert scores is not None
        return scores
    columns = engine.score(rows, temperature=np.linspace(0.5, 2, len(rows), dtype=np.float32))
    assert columns is not None
    return columns["values" if head is Head.value else "log_probs"].values


def _loss(rows: Batch, head: Head, outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
    """A loss with a gradient from the first step: new heads say 0."""
    if head is Head.reward:
        return (outputs.scores - 1).square().sum()
    if head is Head.value:
        return (outputs.values - 1).square().sum()
    weights = torch.tensor(LearnedTokens.of(rows).select(micro.rows).pick(rows.ragged("weights").select(micro.rows)))
    return reference.loss(outputs.log_probs, outputs.entropy, weights)
