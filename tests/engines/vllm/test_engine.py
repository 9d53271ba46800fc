"""vLLM inside our ranks: Megatron at TP 2, two replicas of TP 1, and the transition between them after each step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.batch import concat as join
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm.backend import HEAD_DIMS_ON_CPU
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import reference
from tests.engines.vllm import rank_functions
from tests.engines.vllm.corruptions import CORRUPTIONS, SAYS
from tests.engines.vllm.rank_functions import Corrupted
from tests.spmd import Ranks

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]

VOCAB = 70
SAMPLED, GREEDY = Sampling(1.0, max_tokens=12), Sampling(0.0, max_tokens=12)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def folder(request: pytest.FixtureRequest, tiny: GetModel) -> Path:
    return tiny(vocab=VOCAB, tied=request.param)


def prompts(seed: int = 0) -> list[Ragged]:
    """The two replicas' prompts: 9 and 6, of 1 to 9 tokens."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, VOCAB, 1 + n % 9) for n in range(15)]
    return [Ragged.of(rows[:9]), Ragged.of(rows[9:])]


def seeds(parts: list[Ragged]) -> list[list[int]]:
    return [[1000 * replica + row for row in range(len(part))] for replica, part in enumerate(parts)]


def rollout(ranks: Ranks, folder: Path, sampling: Sampling = SAMPLED, seed: int = 0) -> tuple[Batch, np.ndarray]:
    """All replicas' rows, and vLLM's log-probs of their tokens."""
    parts = prompts(seed)
    found: list[Generated] = ranks.run(rank_functions.generate, folder, parts, sampling, seeds(parts))
    rows = join([Batch(prompt_ids=p, response_ids=g.tokens) for p, g in zip(parts, found, strict=True)])
    return rows, np.concatenate([g.log_probs.values for g in found])


def apart(ranks: Ranks, folder: Path) -> float:
    """How far Megatron's log-probs of freshly sampled tokens are from vLLM's."""
    rows, log_probs = rollout(ranks, folder)
    scored = ranks.run(rank_functions.score, folder, rows)
    assert np.array_equal(scored[0], scored[1])
    return float(np.abs(scored[0] - log_probs).max())


def refit(ranks: Ranks, folder: Path) -> None:
    """Bring generation to what is trained, whatever it had."""
    version = ranks.run(rank_functions.version, folder)[0]
    assert ranks.run(rank_functions.refit, folder, 100 if version is None else version + 1) == [True, True]


def ready(ranks: Ranks, folder: Path) -> None:
    """Weights are needed, of any version."""
    if ranks.run(rank_functions.version, folder)[0] is None:
        refit(ranks, folder)


def assert_agreement(ranks: Ranks, folder: Path, steps: int) -> None:
    """After a refit, and after each step and its refit; and not in between."""
    refit(ranks, folder)
    assert apart(ranks, folder) < 1e-5
    for step in range(1, steps + 1):
        rows, _ = rollout(ranks, folder, seed=step)
        ranks.run(rank_functions.learn, folder, rows)
        assert apart(ranks, folder) > 1e-3, "vLLM already has weights that no refit gave it"
        refit(ranks, folder)
        assert apart(ranks, folder) < 1e-5


def likeliest(folder: Path, rows: Batch) -> list[list[int]]:
    """transformers' greedy responses to the prompts, each ended by token 0."""
    model, found = reference.load(folder), []
    for prompt in rows.ragged("prompt_ids"):
        ids = prompt.tolist()
        for _ in range(GREEDY.max_tokens):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 0:
                break
        found.append(ids[len(prompt) :])
    return found


def test_generation_before_any_refit_is_refused(folder: Path, ranks2: Ranks) -> None:
    if ranks2.run(rank_functions.version, folder)[0] is not None:
        pytest.skip("an earlier test has refitted this engine already")
    assert (
        ranks2.run(rank_functions.refusal, folder, prompts()[0])
        == ["generation was asked for before a refit gave the engine its weights"] * 2
    )


def test_the_engines_agree_after_each_refit_and_not_without_one(folder: Path, ranks2: Ranks) -> None:
    """The check of the refit must be able to see one that is left out."""
    assert_agreement(ranks2, folder, steps=2)


@pytest.mark.parametrize(
    "options", [{"architecture": "qwen3"}, {"architecture": "llama", "llama3_rope": True}], ids=["qwen3", "llama3"]
)
def test_the_engines_agree_on_other_architectures(options: dict[str, object], ranks2: Ranks, tiny: GetModel) -> None:
    """Norms of queries and keys, heads of their own size; stretched frequencies."""
    assert_agreement(ranks2, tiny(vocab=VOCAB, **options), steps=1)


def test_greedy_tokens_are_those_of_transformers_after_a_step(folder: Path, ranks2: Ranks, tmp_path: Path) -> None:
    ready(ranks2, folder)
    before, _ = rollout(ranks2, folder, GREEDY)
    ranks2.run(rank_functions.learn, folder, before)
    refit(ranks2, folder)
    after, _ = rollout(ranks2, folder, GREEDY)
    ranks2.run(rank_functions.export, folder, tmp_path / "out")
    found = [response.tolist() for response in after.ragged("response_ids")]
    assert found == likeliest(tmp_path / "out", after)
    assert len(set(after.ragged("response_ids").values.tolist())) > 5, "the model says one thing only"


def test_the_same_seeds_repeat_bit_for_bit_and_others_do_not(folder: Path, ranks2: Ranks) -> None:
    ready(ranks2, folder)
    (rows, log_probs), (again, log_probs_again) = rollout(ranks2, folder), rollout(ranks2, folder)
    assert np.array_equal(rows.ragged("response_ids").values, again.ragged("response_ids").values)
    assert np.array_equal(log_probs, log_probs_again)
    parts = prompts()
    others = ranks2.run(
        rank_functions.generate, folder, parts, SAMPLED, [[seed + 7 for seed in part] for part in seeds(parts)]
    )
    assert others[0].tokens.values.tolist() != rows.select(np.arange(9)).ragged("response_ids").values.tolist()


def test_a_rows_tokens_do_not_depend_on_its_company(folder: Path, ranks2: Ranks) -> None:
    ready(ranks2, folder)
    parts = prompts()
    rows_per_unit = ranks2.run(rank_functions.generate, folder, parts, SAMPLED, seeds(parts))
    for row in (0, 3, 5):
        alone = ranks2.run(
            rank_functions.generate,
            folder,
            [part.select(np.array([row])) for part in parts],
            SAMPLED,
            [[numbers[row]] for numbers in seeds(parts)],
        )
        for whole, one in zip(rows_per_unit, alone, strict=True):
            assert one.tokens[0].tolist() == whole.tokens[row].tolist()
            np.testing.assert_allclose(one.log_probs[0], whole.log_probs[row], rtol=0, atol=1e-5)


def test_rows_under_way_go_on_with_other_weights_from_a_token_boundary(folder: Path, ranks2: Ranks) -> None:
    """Their random streams go on too; and what they have so far is computed again by the new weights."""
    ready(ranks2, folder)
    parts = prompts()
    start: int = ranks2.run(rank_functions.version, folder)[0]
    refit(ranks2, folder)

    def sampled(before: int, version: int, learned: Batch | None = None, *, keeps_cache: bool = False) -> Batch:
        asked = folder, parts, before, start + version, learned, keeps_cache
        return join(ranks2.run(rank_functions.renewed, *asked))

    whole = sampled(100, 2)
    same = sampled(4, 3)
    assert same.ragged("response_ids").values.tolist() == whole.ragged("response_ids").values.tolist()
    np.testing.assert_allclose(
        same.ragged("rollout_log_probs").values, whole.ragged("rollout_log_probs").values, rtol=0, atol=1e-5
    )
    other = sampled(4, 4, whole)
    runs = [row.reshape(-1, 2).tolist() for row in other.ragged("weight_version")]
    lengths = other.lengths("response_ids").tolist()
    long = [[[start + 3, 4], [start + 4, length - 4]] for length in lengths]
    assert runs == [pairs if length > 4 else [[start + 3, length]] for length, pairs in zip(lengths, long, strict=True)]
    scored = ranks2.run(rank_functions.score, folder, other)[0]
    apart_by = np.abs(scored - other.ragged("rollout_log_probs").values)
    newest = np.concatenate([np.arange(length) >= 4 for length in lengths])
    assert apart_by[newest].max() < 1e-5 and apart_by[~newest].mean() > 1e-4

    kept = sampled(4, 5, whole, keeps_cache=True)
    assert {version for version, _ in kept.ragged("weight_version").values.tolist()} == {start + 4, start + 5}
    scored = ranks2.run(rank_functions.score, folder, kept)[0]
    lengths = kept.lengths("response_ids").tolist()
    newest = np.concatenate([np.arange(length) >= 4 for length in lengths])
    apart_by = np.abs(scored - kept.ragged("rollout_log_probs").values)
    assert apart_by[newest].max() > 1e-5, "keys and values are of the older weights"


def test_more_prompts_than_a_step_of_the_engine_takes_wait_whole(folder: Path, ranks2: Ranks) -> None:
    """A prompt that was taken in parts would have a CPU's random numbers wound back, which is impossible."""
    ready(ranks2, folder)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, VOCAB, 50) for _ in range(96)]  # 4,800 tokens; vLLM takes 4,096 at a time on a CPU
    parts = [Ragged.of(rows), Ragged.of(rows[-9:])]
    own = [[*range(96)], [*range(87, 96)]]
    many, few = ranks2.run(rank_functions.generate, folder, parts, SAMPLED, own)
    assert [ids.tolist() for ids in many.tokens][-9:] == [ids.tolist() for ids in few.tokens]


def test_responses_end_with_the_stop_token_or_at_the_limit(folder: Path, ranks2: Ranks) -> None:
    ready(ranks2, folder)
    hot = Sampling(2.0, max_tokens=40)
    rows, log_probs = rollout(ranks2, folder, hot)
    responses = rows.ragged("response_ids")
    ended = [response for response in responses if response[-1] == 0]
    assert ended, "no row drew the stop token: the test shows nothing"
    for response in responses:
        assert 0 not in response[:-1].tolist() and (response[-1] == 0 or len(response) == 40)
    assert len(log_probs) == len(responses.values)


def test_a_replica_without_rows_gives_none(folder: Path, ranks2: Ranks) -> None:
    ready(ranks2, folder)
    parts = [prompts()[0], Ragged.of([])]
    found = ranks2.run(rank_functions.generate, folder, parts, SAMPLED, seeds(parts))
    assert [len(generated.tokens) for generated in found] == [9, 0]
    assert found[1].tokens.values.dtype == np.int64 and found[1].log_probs.values.dtype == np.float32


@pytest.mark.parametrize(
    ("number", "how", "said"),
    [
        (3, "breaks", "the stream broke"),  # between a layer's queries and its keys
        (25, "breaks", "the stream broke"),
        (3, "lacks", r"of the layers of .*q_proj\.weight, .* not all weights have come"),
        (3, "is small", r"k_proj\.weight: a shard of \(63, 128\) does not fit into \(64, 128\)"),
    ],
)
def test_a_refit_that_dies_half_way_leaves_no_weights_and_the_next_one_mends_it(
    folder: Path, ranks2: Ranks, number: int, how: str, said: str
) -> None:
    ready(ranks2, folder)
    for message in ranks2.run(rank_functions.broken_refit, folder, 50, number, how):
        assert re.search(said, message), message
    assert ranks2.run(rank_functions.version, folder) == [None, None]
    refused = ranks2.run(rank_functions.refusal, folder, prompts()[0])
    assert all("before a refit" in one for one in refused)
    refit(ranks2, folder)
    assert apart(ranks2, folder) < 1e-5


def test_a_prefix_cache_that_cannot_be_emptied_serves_no_row(ranks2: Ranks, folder: Path) -> None:
    refit(ranks2, folder)
    for said, rows in ranks2.run(rank_functions.with_a_block_in_use, folder, prompts()[0]):
        assert "did not empty its prefix cache" in said and rows == 9


@pytest.mark.parametrize(
    ("engine", "sizes", "tensor", "said"),
    [
        ("megatron", {"num_key_value_heads": 1}, 2, "tensor size 2 does not divide the 1 key/value heads"),
        ("megatron", {"intermediate_size": 127}, 2, "tensor size 2 does not divide the 127 feed-forward rows"),
        ("megatron", {"num_key_value_heads": 3}, 1, "num_key_value_heads = 3 does not divide num_attention_heads = 4"),
        ("vllm", {"intermediate_size": 127}, 2, "tensor size 2 does not divide the 127 feed-forward rows"),
        ("vllm", {"num_attention_heads": 8}, 1, "heads of 16 numbers: vLLM's attention on a CPU takes 32, 64, 80, 96"),
        ("vllm", {"num_key_value_heads": 3}, 1, "num_key_value_heads = 3 does not divide num_attention_heads = 4"),
    ],
)
def test_what_cannot_be_cut_or_run_so_is_refused_in_words(
    engine: str, sizes: dict[str, int], tensor: int, said: str, ranks: GetRanks, tiny: GetModel, tmp_path: Path
) -> None:
    """By the engines themselves, whoever makes them."""
    config = json.loads((tiny(vocab=VOCAB) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **sizes}))
    for found in ranks(tensor).run(rank_functions.refused, engine, tmp_path, Layout(tensor)):
        assert said in found


def test_what_is_corrupted_on_its_way_or_in_the_engine_is_not_sampled_with(folder: Path, ranks2: Ranks) -> None:
    """And is told to all ranks by the name of the weight. What is right the second time goes on."""
    ready(ranks2, folder)
    rows, _ = rollout(ranks2, folder)
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    for number, how in enumerate(CORRUPTIONS):
        name = SAYS[how] if tied or how != "tied head left behind" else "lm_head.weight [0, "
        found: list[Corrupted] = ranks2.run(
            rank_functions.corrupted_refit, folder, rows, 1000 + 10 * number, number % 2, how, 2
        )
        for one in found:
            assert f"rank {number % 2}, of ranks 0, 1: " in one.said and name in one.said, (how, one.said)
            assert (one.version, one.repeated, one.afterwards) == (None, 1, True), how
    once: list[Corrupted] = ranks2.run(rank_functions.corrupted_refit, folder, rows, 2000, 1, "stale", 1)
    assert [(one.said, one.version, one.repeated) for one in once] == [("", 2001, 1)] * 2
    ranks2.run(rank_functions.corrupted_refit, folder, rows, 2010, 0, "stale", 2)
    assert apart(ranks2, folder) < 1e-5


def test_the_sizes_of_heads_are_those_of_vllms_attention_on_a_cpu() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert list(HEAD_DIMS_ON_CPU) == CPUAttentionBackend.get_supported_head_sizes()
