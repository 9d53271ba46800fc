"""Which temperature log-probs are taken at: of text that was given 1, of rollouts that of each row's sampling.

Against transformers; a worker's settings ask for another temperature than either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.weight_versions import one_run
from hybridflow.config.schema import Config
from hybridflow.parallel.layout import Layout
from tests.engines import reference
from tests.spmd import Ranks
from tests.workers import step_rank_functions as rank_functions

pytestmark = pytest.mark.ranks

OTHER = 0.5  # of the settings
HEAT = np.array([0.5, 1.0, 1.5, 0.7], dtype=np.float32)  # of each row


@pytest.fixture(scope="module")
def roles(ranks1: Ranks, models: tuple[Path, Path]) -> Ranks:
    """One rank with an actor that does not move and a reference."""
    config = Config()
    config.rollout.temperature = OTHER
    config.actor.optimizer.lr = config.actor.optimizer.weight_decay = 0.0
    config.actor.model.path, config.reference.model.path = map(str, models)
    config.algorithm.policy_loss.kl_coef = 0.1
    ranks1.run(rank_functions.build, config, Layout(), ("actor", "reference"))
    return ranks1


def rows() -> Batch:
    rng = np.random.default_rng(7)
    columns = [Ragged.of([rng.integers(2, 44, n) for n in lengths]) for lengths in ((3, 1, 6, 4), (5, 1, 7, 2))]
    return Batch(prompt_ids=columns[0], response_ids=columns[1])


def call(on: Ranks, role: str, method: str, batch: Batch) -> tuple[Batch, dict[str, float]]:
    [(given, metrics)] = on.run(rank_functions.call, role, method, [rank_functions.Call((batch,), {})])
    return given, dict(metrics)


def expected(folder: Path, batch: Batch, temperature: np.ndarray | None) -> Tensor:
    with torch.no_grad():
        logits = reference.row_logits(reference.load(folder), batch)
        return reference.statistics(logits, batch, temperature)[0]


def sums(folder: Path, pairs: Batch, column: str) -> Tensor:
    """[R] the log-probs of one side of the pairs, of the model itself."""
    side = Batch(prompt_ids=pairs.ragged("prompt_ids"), response_ids=pairs.ragged(column))
    lengths = side.ragged("response_ids").lengths.tolist()
    return torch.stack([row.sum() for row in expected(folder, side, None).split(lengths)])


def test_supervised_training_is_of_the_model_itself(roles: Ranks, models: tuple[Path, Path]) -> None:
    """Also of rows that were sampled, at whatever temperature."""
    nll = -float(expected(models[0], rows(), None).mean())
    for batch in (rows(), rows() | Batch(sampling_temperature=HEAT)):
        assert call(roles, "actor", "update_supervised", batch)[1]["actor/nll"] == pytest.approx(nll, abs=1e-5)


def test_preferences_are_of_the_models_themselves(roles: Ranks, models: tuple[Path, Path]) -> None:
    pairs = rows() | Batch(rejected_ids=rows().ragged("response_ids").select(np.array([3, 2, 1, 0])))
    given, _ = call(roles, "reference", "compute_ref_pair", pairs)
    both = [[sums(folder, pairs, side) for side in ("response_ids", "rejected_ids")] for folder in models]
    for column, by_reference in zip(("ref_chosen", "ref_rejected"), both[1], strict=True):
        np.testing.assert_allclose(given.dense(column), by_reference, atol=1e-4)
    _, metrics = call(roles, "actor", "update_preferred", pairs | given)
    [(chosen, rejected), (ref_chosen, ref_rejected)] = both
    loss = -F.logsigmoid(0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))).mean()
    assert metrics["actor/dpo_loss"] == pytest.approx(float(loss), abs=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_rollouts_are_scored_and_learned_from_at_the_temperature_of_their_sampling(
    roles: Ranks, models: tuple[Path, Path], known: bool
) -> None:
    """That of each row; of rows that do not say so, `rollout.temperature`."""
    heat = HEAT if known else np.full(4, OTHER, dtype=np.float32)
    batch = rows() | Batch(
        rollout_log_probs=rows().ragged("response_ids").like(expected(models[0], rows(), heat).numpy()),
        weight_version=one_run(0, rows().lengths("response_ids")),
    )
    if known:
        batch |= Batch(sampling_temperature=HEAT)
    given, metrics = call(roles, "actor", "compute_log_prob", batch)
    assert metrics["actor/rollout_log_prob_diff_max"] < 1e-5
    batch |= given | call(roles, "reference", "compute_ref_log_prob", batch)[0]
    np.testing.assert_allclose(batch.ragged("ref_log_probs").values, expected(models[1], rows(), heat), atol=1e-5)
    batch |= Batch(advantages=rows().ragged("response_ids").like(np.ones(15, dtype=np.float32)))
    _, metrics = call(roles, "actor", "update_actor", batch)
    assert metrics["actor/approx_kl"] == pytest.approx(0.0, abs=1e-6), "the policy that learns is the one that sampled"
