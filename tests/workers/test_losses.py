"""`update_policy` on a loss of a user's: the gradient is that of its words, on one rank and two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridflow import preflight
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.config.schema import Config
from hybridflow.dispatch import Call, methods, protocols
from hybridflow.parallel.layout import Layout
from hybridflow.roles import roles
from tests.conftest import GetModel, GetRanks
from tests.engines import reference
from tests.engines.rank_functions import merged
from tests.workers import loss_rank_functions

pytestmark = pytest.mark.ranks

COEF = 0.5


@pytest.fixture(scope="module")
def model(tiny: GetModel) -> Path:
    return tiny(layers=2, hidden=64, heads=2, kv_heads=2, vocab=70)


def build_rows() -> Batch:
    """Six rows, one of no token; the grade of the last has failed."""
    rng = np.random.default_rng(4)
    responses = Ragged.of([rng.integers(2, 44, n) for n in (5, 1, 0, 7, 2, 4)])
    return Batch(
        prompt_ids=Ragged.of([rng.integers(2, 44, n) for n in (3, 1, 6, 4, 2, 2)]),
        response_ids=responses,
        teacher_log_probs=responses.like(rng.normal(-3, 1, len(responses.values)).astype(np.float32)),
        importance=rng.uniform(0.5, 2, 6).astype(np.float32),
        rewards=np.array([0, 1, 0, 1, 0, np.nan], dtype=np.float32),
    )


def build_config(model: Path) -> Config:
    own = ("algorithm=grpo", f"actor.model.path={model}", "actor.parallel.tensor=1", "reward.max_failed_share=0.9")
    config = preflight.load("train", ["experiment=addition", *own])
    config.actor.max_tokens_per_rank = 12
    return config


@pytest.mark.parametrize("layout", [Layout(), Layout(data=2), Layout(2)], ids=["one", "dp2", "tp2"])
def test_the_gradient_is_that_of_its_words(layout: Layout, model: Path, ranks: GetRanks) -> None:
    rows = build_rows()
    args, options = (BatchRef.from_local(rows), "weighed_reverse_kl"), {"coef": COEF}
    method = methods(roles.get("actor"))["update_policy"].of_call(args, options)
    calls = protocols.get(method.protocol)().distribute(layout, Call(args, options))
    parts = [call.map(here) for call in calls if call is not None]
    found = ranks(layout.size).run(loss_rank_functions.update, build_config(model), layout, parts)
    gradient, measured = merged([arrays for arrays, _ in found]), found[0][1]

    learned = rows.select(np.arange(5))
    policy = reference.load(model)
    log_probs = reference.statistics(reference.row_logits(policy, learned), learned)[0]
    lengths = torch.from_numpy(learned.lengths("response_ids"))
    weights = torch.from_numpy(learned.dense("importance").copy()).repeat_interleave(lengths)
    away = log_probs - torch.from_numpy(learned.ragged("teacher_log_probs").values.copy())
    (COEF * weights * 0.5 * away.square()).mean().backward()
    for name, param in policy.named_parameters():
        off = float((gradient[name] - param.grad).norm() / param.grad.norm())
        assert off < 1e-4, name
    if layout.size == 1:
        assert measured["actor/teacher_kl"] == pytest.approx(float(away.detach().mean()), rel=1e-4)
        assert measured["actor/trained_rows"] == 5


def here(value: Any) -> Any:
    """Rows as a rank gets them."""
    return value.get() if isinstance(value, BatchRef) else value
