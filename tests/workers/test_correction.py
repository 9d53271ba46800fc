"""Whether the policy loss is corrected for its sampler where nobody says so: in bfloat16, if the sampler is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Config, DType
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel
from tests.spmd import Ranks
from tests.workers import step_rank_functions as rank_functions

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(layers=2, hidden=64, heads=2, kv_heads=2, vocab=70)


def rollout(ratios: list[float]) -> Batch:
    """One row, whose tokens the old policy likes so many times as much as the sampler."""
    responses, tokens = Ragged.of([[5, 6, 7, 8]], np.int64), len(ratios)
    old = np.full(tokens, -1.0, dtype=np.float32)
    columns = {"old_log_probs": old, "rollout_log_probs": old - np.log(ratios), "advantages": np.ones(tokens)}
    ragged = {name: responses.like(values.astype(np.float32)) for name, values in columns.items()}
    return Batch(prompt_ids=Ragged.of([[2, 3]], np.int64), response_ids=responses, **ragged)


def measured(ranks: Ranks, folder: Path, dtype: DType, rows: Batch) -> dict[str, float]:
    config = Config()
    config.actor.model.path, config.actor.model.dtype = str(folder), dtype
    ranks.run(rank_functions.build, config, Layout(), ("actor",))
    [(_, metrics)] = ranks.run(rank_functions.call, "actor", "update_actor", [rank_functions.Call((rows,), {})])
    return {name: value for name, value in metrics.items() if name.startswith("rollout_correction/")}


def test_by_the_number_format(ranks1: Ranks, folder: Path) -> None:
    """In bfloat16 a token is weighed by its ratio, at most 3."""
    rows = rollout([0.5, 1.0, 2.0, 9.0])
    assert measured(ranks1, folder, DType.float32, rows) == {}
    found = measured(ranks1, folder, DType.bfloat16, rows)
    assert found["rollout_correction/weight"] == pytest.approx((0.5 + 1 + 2 + 3) / 4)
    assert found["rollout_correction/changed"] == 0.25


def test_rows_of_another_sampler_are_learned_from_as_they_are(ranks1: Ranks, folder: Path) -> None:
    """Their log-probs under what sampled them are not known."""
    rows = rollout([1.0] * 4)
    known = Batch(**{name: rows[name] for name in rows.columns if name != "rollout_log_probs"})
    assert measured(ranks1, folder, DType.bfloat16, known) == {}
