"""What `benchmarks.megatron` compares: the engine, the same Megatron model bare, and plain transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.config.schema import OptimizerConfig
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.engines.megatron.micro_batches import PackedMicroBatch
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.process_groups import make_groups

PADDED_ROWS, BUDGET = 8, 2048
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Ours:
    """The engine as a role uses it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.engine = MegatronEngine(
            folder, make_groups(Layout(), 600.0), dtype=DTYPES[dtype], budget=BUDGET, optimizer=OptimizerConfig()
        )

    def train(self, rows: Batch, seed: int) -> None:
        """Gradients of the mean log-prob of the response tokens."""
        assert self.engine.optimizer is not None
        self.engine.optimizer.clear()
        tokens = int(rows.lengths("response_ids").sum())
        self.engine.run(self.engine.pack(rows), lambda outputs, _: -outputs.log_probs.sum() / tokens, train=True)

    def score(self, rows: Batch, seed: int) -> None:
        """Log-probs of the response tokens."""
        self.engine.score(rows)


class Bare:
    """The same Megatron model without the engine."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours

    def train(self, micros: list[PackedMicroBatch], tokens: int) -> None:
        """Compute the same gradients."""
        optimizer = self.ours.engine.optimizer
        assert optimizer is not None
        optimizer.clear()
        model = optimizer.model.train()
        head = self.ours.engine.model.output_layer
        own, head.__class__ = head.__class__, ColumnParallelLinear  # Megatron's own: logits of all tokens
        for micro in micros:
            logits = model(micro.tokens, micro.positions, None, packed_seq_params=micro.packed)[0]
            (F.cross_entropy(logits[micro.logit_positions].float(), micro.targets, reduction="sum") / tokens).backward()
        model.finish_grad_sync()
        head.__class__ = own


class Plain:
    """transformers with SDPA on padded batches."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="sdpa")

    def train(self, rows: Batch, seed: int) -> None:
        """Compute the same gradients."""
        self.model.train().zero_grad()
        tokens = int(rows.lengths("response_ids").sum())
        for batch in self._batches(rows, seed):
            (-self._log_probs(batch).sum() / tokens).backward()

    def score(self, rows: Batch, seed: int) -> None:
        """Compute the same log-probs."""
        self.model.eval()
        with torch.no_grad():
            for batch in self._batches(rows, seed):
                self._log_probs(batch)

    def _batches(self, rows: Batch, seed: int) -> list[Batch]:
        return rows.permute(np.random.default_rng(seed).permutation(len(rows))).split(len(rows) // PADDED_ROWS)

    def _log_probs(self, rows: Batch) -> Tensor:
        pairs = [np.concatenate(p) for p in zip(rows.ragged("prompt_ids"), rows.ragged("response_ids"), strict=True)]
        longest = max(map(len, pairs))
        ids, real = torch.zeros(len(pairs), longest, dtype=torch.long), torch.zeros(len(pairs), longest)
        scored = torch.zeros(len(pairs), longest, dtype=torch.bool)
        for row, (pair, prompt) in enumerate(zip(pairs, rows.lengths("prompt_ids").tolist(), strict=True)):
            ids[row, : len(pair)], real[row, : len(pair)] = torch.from_numpy(pair), 1
            scored[row, prompt : len(pair)] = True
        logits = self.model(input_ids=ids, attention_mask=real).logits[:, :-1]
        targets = ids[:, 1:][scored[:, 1:]]
        return -F.cross_entropy(logits[scored[:, 1:]].float(), targets, reduction="none")
