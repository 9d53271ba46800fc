"""What ranks run: an engine on rows that share prefixes, and on the same rows as if they did not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.outputs import MicroBatch, TokenOutputs
from hybridflow.models import Head
from hybridflow.parallel.layout import Layout
from hybridflow.workers.model_worker import tokens_of
from tests.engines import rank_functions, reference
from tests.engines.megatron.engine_reference import gradients

SHARING = ("group_id", "prefix")


@cache
def build_engine(folder: Path, layout: Layout, head: Head, dtype: torch.dtype) -> MegatronEngine:
    """An engine whose weights stay as they are; a new head is not 0."""
    made = rank_functions.trainer(folder, layout, reference.SETTINGS, head=head, dtype=dtype)
    if head is not Head.lm and made.groups.last_stage:
        weight = made.model.output_layer.weight
        weight.data.copy_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
    return made


def computed(made: MegatronEngine, batch: Batch, rows_per_unit: int) -> tuple[rank_functions.Arrays, int]:
    """Scores, the loss and its gradients, whatever the head; and the tokens that went through the model."""
    assert made.optimizer is not None
    found: rank_functions.Arrays = {}
    if made.head is Head.reward:
        scores = made.score_rows(batch)
        found |= {} if scores is None else {"scores": scores}
    else:
        columns = made.score(batch)
        found |= {} if columns is None else {name: column.values for name, column in columns.items()}
    losses: list[float] = []

    def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
        weights = tokens_of(batch.ragged("weights"), micro)
        share = reference.loss(outputs.log_probs, outputs.entropy, weights) if made.head is Head.lm else torch.zeros(())
        if made.head is Head.value:
            share = (weights * outputs.values.square()).sum()
        elif made.head is Head.reward:
            share = (outputs.scores * torch.tensor(np.cos(micro.rows), dtype=torch.float32)).sum()
        losses.append(float(share.detach()))
        return share

    micros = made.pack(batch, rows_per_unit)
    made.optimizer.clear()
    made.run(micros, loss, train=True)
    found |= {f"gradient of {name}": values for name, values in gradients(made).items()}
    return found | {"loss": np.array(sum(losses))}, sum(micro.tokens.shape[1] for micro in micros)


def compare(
    folder: Path, layout: Layout, batch: Batch, *, budget: int, head: Head = Head.lm, rows_per_unit: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[float, str, int, int]:  # fmt: skip
    """The largest |with − without| / |without| and what it is of; and the tokens with sharing, and without."""
    made = build_engine(folder, layout, head, dtype)
    made.budget = budget
    found, tokens = computed(made, batch, rows_per_unit)
    silent = batch.select_columns([name for name in batch.columns if name not in SHARING])
    silent = batch.select_columns([name for name in batch.columns if name not in SHARING])
    expected, all_tokens = computed(made, silent, rows_per_unit)
    assert set(found) == set(expected)
    errors = []
    for name, values in expected.items():
        difference, size = (float(np.linalg.norm(x.astype(np.float64))) for x in (found[name] - values, values))
        errors.append((difference / size if size else difference, name))
    return *max(errors), tokens, all_tokens
