"""What a loss says of its tokens, as the metrics of a step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.observe.metrics import Metrics
from hybridflow.workers.model_worker import ModelWorker


def recorded(*micro_batches: torch.Tensor) -> dict[str, float]:
    """Of micro-batches of tokens, each a quantity: its sum, its mean and its largest value."""
    worker: Any = SimpleNamespace(context=SimpleNamespace(metrics=Metrics()))
    for values in micro_batches:
        largest = {"most": values.max()} if len(values) else {}
        loss = TokenLoss(values, sums({"by_sum": values}), means={"by_mean": values.mean()}, maxima=largest)
        ModelWorker.record(worker, loss)
    found: dict[str, float] = worker.context.metrics.result()
    return found


def test_a_sum_and_a_mean_over_uneven_parts_are_the_mean_over_all_tokens() -> None:
    found = recorded(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([6.0]))
    assert found == {"by_sum": 3.0, "by_mean": 3.0, "most": 6.0}


def test_a_mean_of_no_tokens_counts_for_nothing() -> None:
    assert recorded(torch.tensor([2.0]), torch.zeros(0)) == {"by_sum": 2.0, "by_mean": 2.0, "most": 2.0}
