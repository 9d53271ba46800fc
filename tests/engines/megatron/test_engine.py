"""The Megatron engine on every kind of layout against transformers and plain torch, in float32."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hybridflow.batch import Batch, Ragged
from hybridflow.models import Head
from hybridflow.models.weight_files import tensor_files
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import rank_functions, reference
from tests.matrix import thinned
from tests.spmd import Ranks

# The vocabularies need padding: 250 to 256, 70 to 128 (of two parts, the second has 6 rows that are real).
MODELS = {
    "qwen2": {"architecture": "qwen2", "vocab": 250},
    "qwen2-tied": {"architecture": "qwen2", "vocab": 70, "tied": True},
    "llama": {"architecture": "llama", "vocab": 70},
    "llama3-tied": {"architecture": "llama", "vocab": 250, "tied": True, "llama3_rope": True},
    "mistral": {"architecture": "mistral", "vocab": 250},
    "mistral-tied": {"architecture": "mistral", "vocab": 70, "tied": True},
    "qwen3": {"architecture": "qwen3", "vocab": 70},
    "qwen3-tied": {"architecture": "qwen3", "vocab": 250, "tied": True},
}
LAYOUTS = {"one": Layout(), "tp2": Layout(2), "pp2": Layout(1, 2), "tp2-pp2": Layout(2, 2)}
# The models that test_engine_reference.py has not, on the layout that cuts them most; and one on a single rank.
OWN = ("qwen2", "qwen2-tied", "llama3-tied", "mistral-tied", "qwen3")
PAIRS = thinned(product(MODELS, LAYOUTS), {("qwen2-tied", "one"), *product(OWN, ["tp2-pp2"])})

pytestmark = pytest.mark.ranks


@pytest.fixture
def model(name: str, tiny: GetModel) -> Path:
    return tiny(**MODELS[name])


@pytest.fixture
def layout(cut: str) -> Layout:
    return LAYOUTS[cut]


on_every_layout = pytest.mark.parametrize(("name", "cut"), PAIRS)


@cache
def expected_logits(folder: Path) -> list[Tensor]:
    with torch.no_grad():
        return reference.row_logits(reference.load(folder), reference.rows(70))


@cache
def expected_steps(folder: Path) -> tuple[dict[str, Tensor], list[float]]:
    return reference.steps(folder, reference.rows(70), 2, reference.SETTINGS)


def source(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def apart(found: list[tuple[rank_functions.Arrays, list[float]]], folder: Path) -> float:
    """How far what ranks learned is from torch's two steps, in sizes of the update."""
    return reference.apart(
        rank_functions.merged([arrays for arrays, _ in found]), expected_steps(folder)[0], source(folder)
    )


@on_every_layout
def test_logits_are_those_of_transformers(model: Path, layout: Layout, ranks: GetRanks) -> None:
    found = ranks(layout.size).run(rank_functions.logits, model, layout, reference.rows(70))
    last = [rows for rows in found if rows is not None]
    assert len(last) == layout.tensor
    for rows in last:
        for row, expected in zip(rows, expected_logits(model), strict=True):
            np.testing.assert_allclose(row, expected, atol=1e-4)


@on_every_layout
def test_log_probs_and_entropies_are_those_of_transformers(model: Path, layout: Layout, ranks: GetRanks) -> None:
    batch = reference.rows(70)
    temperature = np.linspace(0.5, 1.5, len(batch), dtype=np.float32)
    expected = reference.statistics(expected_logits(model), batch, temperature)
    found = ranks(layout.size).run(rank_functions.score, model, layout, batch, temperature)
    assert sum(scores is None for scores in found) == layout.tensor * (layout.pipeline - 1)
    for scores in filter(None, found):
        for name, values in zip(("log_probs", "entropy"), expected, strict=True):
            assert scores[name].offsets.tolist() == batch.ragged("response_ids").offsets.tolist()
            assert scores[name].values.dtype == np.float32
            np.testing.assert_allclose(scores[name].values, values, atol=1e-4)


@on_every_layout
def test_export_gives_the_source_bit_for_bit(model: Path, layout: Layout, ranks: GetRanks, tmp_path: Path) -> None:
    ranks(layout.size).run(rank_functions.export, model, layout, tmp_path / "out")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    expected = reference.load(model).state_dict()
    assert set(written) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(written[name], tensor), name
    files = [load_file(file) for file in sorted((tmp_path / "out").glob("*.safetensors"))]
    assert len(files) == layout.pipeline
    assert sorted(name for file in files for name in file) == sorted(source(model))
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_text() == (model / name).read_text()


@on_every_layout
def test_two_steps_are_those_of_torch(model: Path, layout: Layout, ranks: GetRanks) -> None:
    _, norms = expected_steps(model)
    assert min(norms) > reference.SETTINGS.clip_grad
    found = ranks(layout.size).run(rank_functions.learn, model, layout, reference.rows(70), reference.SETTINGS)
    assert apart(found, model) < 1e-4
    for _, grad_norms in found:
        np.testing.assert_allclose(grad_norms, norms, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "qwen2-tied"])
def test_a_tensor_rank_may_have_padding_only(name: str, ranks2: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    """A vocabulary of 14 in two parts of 32, as small tasks have it."""
    folder = reference.cut_vocabulary(tiny(**MODELS[name]), 14, tmp_path / "source")
    batch = reference.rows(14)
    expected, norms = reference.steps(folder, batch, 2, reference.SETTINGS)
    found = ranks2.run(rank_functions.learn, folder, Layout(2), batch, reference.SETTINGS)
    arrays = rank_functions.merged([arrays for arrays, _ in found])
    assert reference.apart(arrays, expected, source(folder)) < 1e-4
    np.testing.assert_allclose(found[1][1], norms, rtol=1e-5)
    ranks2.run(rank_functions.export, folder, Layout(2), tmp_path / "out")
    written = source(tmp_path / "out")
    assert all(torch.equal(written[name], tensor) for name, tensor in source(folder).items())


def test_bf16_has_nearly_the_gradients_of_float32(ranks2: Ranks, tiny: GetModel) -> None:
    """MegatronOptimizer state is float32 then, in parameters of its own, which must be known to be cut as well."""
    folder = tiny(**MODELS["qwen2"])
    found = ranks2.run(
        rank_functions.learn, folder, Layout(2), reference.rows(70), reference.SETTINGS, count=1, dtype=torch.bfloat16
    )
    for _, grad_norms in found:
        np.testing.assert_allclose(grad_norms, expected_steps(folder)[1][:1], rtol=0.03)


@pytest.mark.parametrize("budget", [8, 20, 10**6])
def test_micro_batches_do_not_change_an_update(budget: int, ranks1: Ranks, tiny: GetModel) -> None:
    folder = tiny(**MODELS["qwen2"])
    found = ranks1.run(rank_functions.learn, folder, Layout(), reference.rows(70), reference.SETTINGS, budget=budget)
    assert apart(found, folder) < 1e-4


@pytest.mark.parametrize("parts", [[[4, 0, 2, 6, 1, 3], [5]], [[], [0, 1, 2, 3, 4, 5, 6]], [[0, 1, 3, 4, 5, 6], [2]]])
def test_data_parallel_ranks_with_uneven_rows_are_one_rank(
    parts: list[list[int]], ranks2: Ranks, tiny: GetModel
) -> None:
    """Also when a rank has no row, and when it has only one whose response is empty."""
    folder, batch = tiny(**MODELS["qwen2"]), reference.rows(70)
    found = ranks2.run(rank_functions.learn, folder, Layout(data=2), batch, reference.SETTINGS, parts=parts)
    assert apart(found, folder) < 1e-4


@pytest.mark.parametrize("layout", [Layout(2, 1, 2), Layout(1, 2, 2)])
def test_a_pipeline_or_tensor_group_without_rows_joins_the_step(layout: Layout, ranks4: Ranks, tiny: GetModel) -> None:
    """With tied embeddings: then the stages of the idle pipeline have a gradient to share too."""
    folder, batch = tiny(**MODELS["qwen2-tied"]), reference.rows(70)
    parts = [[0, 1, 2, 3, 4, 5, 6], []]
    found = ranks4.run(rank_functions.learn, folder, layout, batch, reference.SETTINGS, parts=parts)
    assert apart(found, folder) < 1e-4


def test_no_rows_are_scored_as_no_rows(ranks2: Ranks, tiny: GetModel) -> None:
    nothing = reference.rows(70).select([])
    for scores in ranks2.run(rank_functions.score, tiny(**MODELS["qwen2"]), Layout(2), nothing):
        assert scores is not None and {name: len(column) for name, column in scores.items()} == {
            "log_probs": 0,
            "entropy": 0,
        }


@pytest.mark.parametrize("layout", [Layout(2), Layout(1, 2)])
def test_a_gradient_that_is_no_number_leaves_the_weights(layout: Layout, ranks2: Ranks, tiny: GetModel) -> None:
    found = ranks2.run(rank_functions.no_gradient, tiny(**MODELS["qwen2-tied"]), layout, reference.rows(70))
    assert found == [(False, True)] * 2


def test_a_value_head_starts_at_zero_and_learns_alike_on_every_layout(ranks: GetRanks, tiny: GetModel) -> None:
    folder, batch = tiny(**MODELS["qwen2-tied"]), reference.rows(70)
    responses = batch.ragged("response_ids")
    returns = responses.like(np.random.default_rng(1).normal(1.0, 1.0, len(responses.values)).astype(np.float32))
    learned: list[list[Ragged]] = []
    norms: list[list[float]] = []
    for layout, sequence in [*((layout, False) for layout in LAYOUTS.values()), (Layout(2), True)]:
        found = ranks(layout.size).run(
            rank_functions.values,
            folder,
            layout,
            batch | Batch(returns=returns),
            reference.SETTINGS,
            6,
            sequence=sequence,
        )
        learned += [values for values, _ in found if values]
        norms += [each for _, each in found]
    assert len(learned) == 1 + 2 + 1 + 2 + 2
    np.testing.assert_allclose(norms, norms[:1] * len(norms), rtol=1e-4)
    for values in learned:
        assert not values[0].values.any() and values[0].offsets.tolist() == responses.offsets.tolist()
        errors = [float(np.square(v.values - returns.values).mean()) for v in values]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.8 * errors[0], errors
        np.testing.assert_allclose(values[-1].values, learned[0][-1].values, atol=1e-4)


@pytest.mark.parametrize("head", list(Head))
def test_an_export_under_another_pipeline_size_leaves_nothing_of_the_former(
    head: str, ranks: GetRanks, tiny: GetModel, tmp_path: Path
) -> None:
    """Shards and index, one file, and shards again, each of other weights: every reader has the last ones."""
    out, dtypes = tmp_path / "model", {"float32": torch.float32, "bfloat16": torch.bfloat16}
    for seed, (layout, dtype) in enumerate(
        [(Layout(1, 2), "bfloat16"), (Layout(), "float32"), (Layout(2, 2), "bfloat16"), (Layout(2), "float32")]
    ):
        folder = tiny(**MODELS["qwen2-tied"], seed=seed)
        ranks(layout.size).run(rank_functions.export, folder, layout, out, head=head, dtype=dtypes[dtype])
        shards = [f"model-{stage:05d}-of-00002.safetensors" for stage in (1, 2)] + ["model.safetensors.index.json"]
        weights = shards if layout.pipeline == 2 else ["model.safetensors"]
        beside = [file.name for file in folder.iterdir() if file.suffix != ".safetensors"]
        assert sorted(file.name for file in out.iterdir()) == sorted([*beside, *weights])
        assert [file.name for file in tmp_path.iterdir()] == ["model"]
        expected = {name: tensor.to(dtypes[dtype]) for name, tensor in source(folder).items()}
        ours, theirs = read_by_vllm(out), AutoModel.from_pretrained(out).state_dict()
        assert AutoConfig.from_pretrained(out).dtype == dtypes[dtype]
        for name, tensor in expected.items():
            with safe_open(tensor_files(out)[name], "pt") as reader:
                assert torch.equal(reader.get_tensor(name), tensor), name
            assert torch.equal(ours[name], tensor), name
            assert torch.equal(theirs[name.removeprefix("model.")], tensor), name


def read_by_vllm(folder: Path) -> dict[str, torch.Tensor]:
    """What vLLM's loader takes from the folder: all files, without those that an index leaves out."""
    from vllm.model_executor.model_loader import weight_utils

    files = weight_utils.filter_duplicate_safetensors_files(
        [str(file) for file in folder.glob("*.safetensors")], str(folder), "model.safetensors.index.json"
    )
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
