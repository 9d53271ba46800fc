"""Reward models on every kind of layout against transformers and plain torch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from hybridflow.batch import Batch, Ragged
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines.rank_functions import merged, same
from tests.matrix import thinned
from tests.spmd import Ranks
from tests.workers import rank_functions

pytestmark = pytest.mark.ranks

MODELS = {"qwen2": {"architecture": "qwen2"}, "llama-tied": {"architecture": "llama", "tied": True}}
LAYOUTS = {
    "one": Layout(), "tp2": Layout(2), "pp2": Layout(1, 2), "dp2": Layout(data=2), "tp2-dp2": Layout(2, 1, 2),
}  # fmt: skip
GRADIENTS = thinned(
    product(MODELS, LAYOUTS, ["apart", "together"], ["bradley_terry", "signed_cost"]),
    [
        *product(["qwen2"], ["tp2", "dp2", "tp2-dp2"], ["apart"], ["bradley_terry"]),
        ("qwen2", "dp2", "together", "signed_cost"),
        ("llama-tied", "one", "together", "bradley_terry"),
        ("llama-tied", "pp2", "apart", "signed_cost"),
        ("llama-tied", "tp2-dp2", "apart", "signed_cost"),
    ],
)


@pytest.fixture(scope="module")
def scorer(tiny: GetModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`scorer(name)`: a reward model as transformers writes it."""

    @cache
    def make(name: str) -> Path:
        source, folder = tiny(**MODELS[name]), tmp_path_factory.mktemp("scorer")
        model = load(source, torch.float32)
        with torch.no_grad():
            model.score.weight.copy_(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 128))))
        model.save_pretrained(folder)
        shutil.copy2(source / "tokenizer.json", folder)
        return folder

    return make


def load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)


def some_pairs() -> Batch:
    """7 pairs with sides of different lengths, one of them empty. Token 0 is padding to transformers: none has it."""
    rng = np.random.default_rng(2)

    def rows(*lengths: int) -> Ragged:
        return Ragged.of([rng.integers(1, 40, n) for n in lengths])

    return Batch(
        prompt_ids=rows(3, 1, 6, 4, 2, 5, 1),
        response_ids=rows(5, 1, 0, 7, 2, 9, 3),
        rejected_ids=rows(2, 4, 3, 7, 1, 6, 8),
        chosen_harmful=np.array([0, 1, 0, 0, 1, 0, 1], dtype=bool),
        rejected_harmful=np.array([1, 1, 0, 1, 1, 0, 1], dtype=bool),
    )


def naive_scores(model: Any, pairs: Batch, side: str) -> list[Tensor]:
    """Each row by itself."""
    rows = zip(pairs.ragged("prompt_ids"), pairs.ragged(side), strict=True)
    return [model(torch.from_numpy(np.concatenate(row))[None]).logits[0, 0] for row in rows]


@cache
def naive(folder: Path, signed: bool) -> tuple[dict[str, Tensor], float, float]:
    """In float64: the gradients of the mean loss, the loss, and the accuracy."""
    model, pairs = load(folder, torch.float64), some_pairs()
    chosen, rejected = (naive_scores(model, pairs, side) for side in ("response_ids", "rejected_ids"))
    margins = [(r - c) if signed else (c - r) for c, r in zip(chosen, rejected, strict=True)]
    likely = list(margins)
    if signed:
        sides = ((chosen, pairs.dense("chosen_harmful")), (rejected, pairs.dense("rejected_harmful")))
        likely += [cost if bad else -cost for costs, side in sides for cost, bad in zip(costs, side, strict=True)]
    loss = sum((-torch.log(torch.sigmoid(x)) for x in likely), torch.zeros((), dtype=torch.float64)) / 7
    loss.backward()
    found = {name: param.grad for name, param in model.named_parameters()}
    return found, float(loss), sum(float(margin) > 0 for margin in margins) / 7


@pytest.mark.parametrize(("name", "cut", "packed", "loss_name"), GRADIENTS)
def test_gradients_are_those_of_plain_torch(
    name: str, cut: str, packed: str, loss_name: str, scorer: Callable[[str], Path], ranks: GetRanks
) -> None:
    """Whether each pair is a micro-batch of its own or all are one; ranks have uneven rows."""
    folder, layout, budget = scorer(name), LAYOUTS[cut], {"apart": 10, "together": 10**6}[packed]
    expected, loss, accuracy = naive(folder, loss_name == "signed_cost")
    found = ranks(layout.size).run(rank_functions.gradients, folder, layout, some_pairs(), budget, loss_name)
    gradients = merged([arrays for arrays, _ in found])
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert float((gradient - expected[name]).norm() / expected[name].norm()) < 1e-5, name
    heads = [found[rank][1] for rank in layout.output_ranks]
    shares = [len_of(layout, at) for at in range(layout.data)]
    for name, value in (("loss", loss), ("accuracy", accuracy)):
        mean = sum(metrics[f"reward_model/{name}"] * share for metrics, share in zip(heads, shares, strict=True)) / 7
        assert mean == pytest.approx(value, rel=1e-5)


def len_of(layout: Layout, at: int) -> int:
    """Pairs of a data parallel rank; see `rank_functions.mine`."""
    return 7 if layout.data == 1 else (2, 5)[at]


@pytest.mark.parametrize(("name", "cut"), [("qwen2", "one"), ("qwen2", "tp2-dp2"), ("llama-tied", "pp2")])
def test_rewards_are_the_scores_of_transformers(
    name: str, cut: str, scorer: Callable[[str], Path], ranks: GetRanks
) -> None:
    folder, layout = scorer(name), LAYOUTS[cut]
    with torch.no_grad():
        expected = torch.stack(naive_scores(load(folder, torch.float32), some_pairs(), "response_ids")).numpy()
    found = ranks(layout.size).run(rank_functions.rewards, folder, layout, some_pairs(), 20)
    rewards = np.concatenate([found[rank].dense("rewards") for rank in layout.output_ranks])
    assert rewards.dtype == np.float32 and np.ptp(expected) > 0.1
    np.testing.assert_allclose(rewards, expected, atol=1e-4)
    for column, wanted in (("baseline_rewards", rewards), ("baseline_lengths", some_pairs().lengths("response_ids"))):
        given = np.concatenate([found[rank].dense(column) for rank in layout.output_ranks])
        assert given.tolist() == wanted.tolist(), "of responses that others are compared with, and their lengths"


def test_a_reward_model_is_one_of_several_graders(scorer: Callable[[str], Path], ranks: GetRanks) -> None:
    """Its score is a grade beside the others', on the ranks that have it; where others are not asked they are not."""
    folder, layout = scorer("qwen2"), LAYOUTS["tp2-dp2"]
    alone = ranks(layout.size).run(rank_functions.rewards, folder, layout, some_pairs(), 20)
    found = ranks(layout.size).run(rank_functions.graded_rewards, folder, layout, some_pairs(), 20)
    for rank, (columns, metrics) in enumerate(found):
        if rank not in layout.output_ranks:
            assert not columns.columns and not any(name.startswith("reward/") for name in metrics)
            continue
        scores = alone[rank].dense("rewards")
        empty = columns.dense("baseline_lengths") == 0
        assert columns.dense("grades").tolist() == np.stack([scores, empty], axis=1).astype(np.float32).tolist()
        np.testing.assert_allclose(columns.dense("rewards"), 0.5 * scores + 2.0 * empty, rtol=1e-6)
        assert columns.dense("baseline_rewards").tolist() == columns.dense("rewards").tolist()
        assert metrics["reward/reward_model/mean"] == pytest.approx(scores.mean(), rel=1e-5)
        assert metrics["reward/exact/mean"] == pytest.approx(empty.mean())
    assert sum(len(columns) for columns, _ in found) == 7


@pytest.mark.parametrize(
    ("name", "cut"), thinned(product(MODELS, ["tp2", "pp2"]), [("qwen2", "tp2"), ("llama-tied", "pp2")])
)
def test_a_trained_model_is_a_folder_that_transformers_scores_alike(
    name: str, cut: str, ranks2: Ranks, ranks1: Ranks, tiny: GetModel, tmp_path: Path
) -> None:
    """From a language model with a fresh head, which is zero; and our own engine loads it again, on another layout."""
    layout = LAYOUTS[cut]
    found = ranks2.run(rank_functions.learn, tiny(**MODELS[name]), layout, some_pairs(), 8, tmp_path / "out")
    compared = found[layout.output_ranks[0]]
    assert (compared[0]["reward_model/loss"], compared[0]["reward_model/accuracy"]) == (pytest.approx(math.log(2)), 0)
    assert compared[-1]["reward_model/loss"] < 0.5 * math.log(2) and compared[-1]["reward_model/accuracy"] == 1
    model = load(tmp_path / "out", torch.float32).eval()
    assert type(model).__name__.endswith("ForSequenceClassification") and model.config.num_labels == 1
    files = [load_file(file) for file in (tmp_path / "out").glob("*.safetensors")]
    assert {key: value.shape for file in files for key, value in file.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    with torch.no_grad():
        expected = torch.stack(naive_scores(model, some_pairs(), "rejected_ids"))
        torch.testing.assert_close(padded_scores(model, some_pairs(), "rejected_ids"), expected, atol=1e-4, rtol=0)
    sides = some_pairs().select_columns(["prompt_ids"]) | Batch(response_ids=some_pairs()["rejected_ids"])
    [rewards] = ranks1.run(rank_functions.rewards, tmp_path / "out", Layout(), sides, 20)
    np.testing.assert_allclose(rewards.dense("rewards"), expected.numpy(), atol=1e-4)


def padded_scores(model: Any, pairs: Batch, side: str) -> Tensor:
    """All rows at once, padded on the right."""
    rows = zip(pairs.ragged("prompt_ids"), pairs.ragged(side), strict=True)
    tokens = [torch.from_numpy(np.concatenate(row)) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=model.config.pad_token_id)
    return model(padded, attention_mask=padded != model.config.pad_token_id).logits[:, 0]


def test_a_checkpoint_has_the_score_too(ranks2: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    """Of a model whose head was not in the folder that it started from."""
    for one, other in ranks2.run(
        rank_functions.resumed, tiny(**MODELS["qwen2"]), Layout(2), some_pairs(), tmp_path / "saved"
    ):
        assert all(same(np.array([*a.values()]), np.array([*b.values()])) for a, b in zip(one, other, strict=True))
        assert one[0]["reward_model/loss"] != pytest.approx(math.log(2), abs=1e-3)


def test_a_language_model_gives_no_rewards(ranks1: Ranks, tiny: GetModel) -> None:
    with pytest.raises(AssertionError, match="is no reward model: it has no score head"):
        ranks1.run(rank_functions.rewards, tiny(**MODELS["qwen2"]), Layout(), some_pairs(), 20)


def test_no_rows_have_no_rewards(scorer: Callable[[str], Path], ranks1: Ranks) -> None:
    [found] = ranks1.run(rank_functions.rewards, scorer("qwen2"), Layout(), some_pairs().slice(0, 0), 20)
    assert found.dense("rewards").shape == (0,)
