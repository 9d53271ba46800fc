"""The actor's generation: what a call may change, what its rows say, and that layouts and caches do not show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.batch import concat as join
from hybridflow.batch.weight_versions import one_run
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.tasks.tokenizer import load_decoder
from tests.conftest import GetModel
from tests.engines.rank_functions import same
from tests.spmd import Ranks
from tests.workers import actor_rank_functions as rank_functions

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]

END = 0  # of the tiny model, whose tokenizer says 1: both end a response


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(vocab=70)


@pytest.fixture(scope="module")
def tensor_ranks() -> Iterator[Ranks]:
    """Two ranks that generate rows_per_unit: vLLM keeps one tensor parallel size for the life of a process."""
    made = Ranks(2)
    yield made
    made.stop()


def prompts(count: int = 10) -> Batch:
    """Prompts of 1 to 9 tokens."""
    rng = np.random.default_rng(3)
    return asking([rng.integers(2, 44, 1 + row % 9) for row in range(count)])


def asking(tokens: list[Any]) -> Batch:
    """Rows with these prompts."""
    return Batch(prompt_ids=Ragged.of(tokens), stream_id=np.arange(len(tokens)) + 100)


def generate(ranks: Ranks, folder: Path, rows: Batch, layout: Layout | None = None, **options: Any) -> Batch:
    """All replicas' rows, in order."""
    layout = layout or Layout()
    found = ranks.run(rank_functions.generate, folder, layout, rows, **options)
    heads = [rank for rank in range(layout.size) if layout.generation_coordinate(rank).tp == 0]
    return join([found[rank][0] for rank in sorted(heads, key=lambda rank: layout.generation_coordinate(rank).dp)])


def assert_alike(found: Batch, expected: Batch) -> None:
    """The same tokens, and log-probs within the rounding of float32."""
    assert found.ragged("response_ids") == expected.ragged("response_ids")
    np.testing.assert_allclose(
        found.ragged("rollout_log_probs").values, expected.ragged("rollout_log_probs").values, rtol=0, atol=1e-5
    )


def test_rows_are_the_same_on_any_layout_and_in_any_company(
    folder: Path, ranks1: Ranks, ranks2: Ranks, tensor_ranks: Ranks
) -> None:
    rows = prompts()
    one = generate(ranks1, folder, rows, step=4)
    assert_alike(generate(ranks2, folder, rows, Layout(2, generation=(1, 1)), step=4), one)
    both = tensor_ranks.run(rank_functions.generate, folder, Layout(2), rows, step=4)
    assert_alike(both[0][0], one)
    assert both[0][0].ragged("response_ids") == both[1][0].ragged("response_ids"), "both ranks have the replica's rows"
    order = np.array([7, 2, 5])
    assert_alike(generate(ranks1, folder, rows.select(order), step=4), one.select(order))
    again = generate(ranks1, folder, rows, step=4)
    for column in ("response_ids", "rollout_log_probs"):
        assert same(again.ragged(column).values, one.ragged(column).values)
    assert generate(ranks1, folder, rows, step=5).ragged("response_ids") != one.ragged("response_ids")


TALKS = {"name": "talks", "max_turns": 3, "max_turn_tokens": 6}
ENDS = {"stop_token_ids": list(range(2, 30))}  # so many tokens end a turn that few are cut


def talking(*answers: str) -> Batch:
    """Rows of an environment that does as these answers say."""
    return prompts(len(answers)) | Batch(answer=np.array(answers, dtype=object))


def test_ranks_of_a_replica_hear_the_same_of_environments(folder: Path, ranks1: Ranks, tensor_ranks: Ranks) -> None:
    rows = talking("", "slow", "short", "fails", *[""] * 6)
    [(_, one, _)] = ranks1.run(rank_functions.converse, folder, Layout(), rows, TALKS, **ENDS)
    both = tensor_ranks.run(rank_functions.converse, folder, Layout(2), rows, TALKS, **ENDS)
    for _, found, _ in both:
        assert_alike(found, one)
        for column in ("loss_mask", "turn_rewards", "turn_index"):
            assert found.ragged(column) == one.ragged(column)
        assert found.dense("environment_failure").tolist() == one.dense("environment_failure").tolist()


def test_a_call_may_be_greedy_or_short(folder: Path, ranks1: Ranks) -> None:
    rows = prompts()
    free = generate(ranks1, folder, rows)
    greedy = [generate(ranks1, folder, rows, step=step, temperature=0.0) for step in (0, 1)]
    assert greedy[0].ragged("response_ids") == greedy[1].ragged("response_ids") != free.ragged("response_ids")
    short = generate(ranks1, folder, rows, max_response_tokens=3)
    assert [r.tolist() for r in short.ragged("response_ids")] == [r[:3].tolist() for r in free.ragged("response_ids")]
    for only_the_likeliest in ({"top_k": 1}, {"top_p": 1e-6}):
        found = generate(ranks1, folder, rows, **only_the_likeliest)
        assert found.ragged("response_ids") == greedy[0].ragged("response_ids")
        assert not found.ragged("rollout_log_probs").values.any(), "of the distribution that is drawn from"
    assert generate(ranks1, folder, rows).ragged("response_ids") == free.ragged("response_ids"), "for one call only"


def test_training_takes_rows_at_the_temperature_that_sampled_them(folder: Path, ranks1: Ranks) -> None:
    """Whatever a call asked for, and also where rows of different calls are learned from together."""
    rows, asked = prompts(), (1.0, 0.5, 1.7, 0.01, 0.0)
    sampled = [rows | generate(ranks1, folder, rows, temperature=temperature) for temperature in asked]
    found = [set(one.dense("sampling_temperature").tolist()) for one in sampled]
    assert found == [{float(np.float32(t))} for t in (1.0, 0.5, 1.7, 0.01, 1.0)], "greedy: the model's own log-probs"
    assert ranks1.run(rank_functions.apart, folder, join(sampled))[0] < 1e-4


@pytest.mark.parametrize("temperature", [0.005, 1e-6, -1.0, float("nan")])
def test_a_temperature_that_vllm_would_replace_is_refused(folder: Path, ranks1: Ranks, temperature: float) -> None:
    with pytest.raises(AssertionError, match=r"temperature = .* samples at 0.01 or more; give that, or 0 for"):
        generate(ranks1, folder, prompts(), temperature=temperature)


@pytest.mark.skipif(platform().name != "cpu", reason="on a GPU vLLM's small functions are compiled")
def test_nothing_is_compiled(folder: Path, ranks1: Ranks) -> None:
    generate(ranks1, folder, prompts())
    assert ranks1.run(rank_functions.compiled) == [{}]


def test_a_change_of_what_there_is_not_is_refused(folder: Path, ranks1: Ranks) -> None:
    with pytest.raises(AssertionError, match="unexpected keyword argument 'temprature'"):
        generate(ranks1, folder, prompts(), temprature=0.5)


def test_a_prompt_without_room_for_its_response_is_refused_before_anything_is_sampled(
    folder: Path, ranks1: Ranks
) -> None:
    with pytest.raises(AssertionError, match=r"1 of 2 prompts are too long, the longest with 189 .* leaves 188"):
        generate(ranks1, folder, asking([[5] * 4, [5] * 189]))
    assert generate(ranks1, folder, asking([[5] * 4, [5] * 188])).ragged("response_ids").lengths[1] >= 1


def test_an_id_that_is_no_token_of_the_model_is_refused_by_name(folder: Path, ranks1: Ranks) -> None:
    """Also where the embedding is padded to 128 rows; training's engine refuses it too, in a prompt or a response."""
    with pytest.raises(AssertionError, match=r"prompt_ids has the id 70, but the vocabulary of .* has 70 tokens"):
        generate(ranks1, folder, asking([[5], [5, 70]]))
    with pytest.raises(AssertionError, match="stop_token_ids has the id 128, but the vocabulary of"):
        generate(ranks1, folder, asking([[5]]), stop_token_ids=[3, 128])
    known = asking([[5]])
    for strange in (70, 127, 128, -1):
        with pytest.raises(AssertionError, match=f"response_ids has the id {strange}, but the vocabulary of"):
            ranks1.run(rank_functions.log_probs, folder, known | Batch(response_ids=Ragged.of([[6, strange]])))
    assert len(ranks1.run(rank_functions.log_probs, folder, known | Batch(response_ids=Ragged.of([[6, 69]])))[0]) == 2


def test_only_ids_below_a_vocabulary_are_sampled(folder: Path, ranks1: Ranks) -> None:
    rows = asking([[5, row] for row in range(64)])
    free, below = generate(ranks1, folder, rows), generate(ranks1, folder, rows, vocabulary=45)
    assert free.ragged("response_ids").values.max() > 60 and below.ragged("response_ids").values.max() < 45
    assert np.isfinite(below.ragged("rollout_log_probs").values).all()
    assert same(
        generate(ranks1, folder, rows, vocabulary=70).ragged("response_ids").values, free.ragged("response_ids").values
    )


def cut(free: Batch, ends: list[int | None]) -> Batch:
    """Rows of `free` up to and with the token of that number."""
    stops = [None if end is None else end + 1 for end in ends]

    def column(name: str) -> Ragged:
        return Ragged.of([row[:stop] for row, stop in zip(free.ragged(name), stops, strict=True)])

    return Batch(response_ids=column("response_ids"), rollout_log_probs=column("rollout_log_probs"))


def test_stop_tokens_end_a_response_and_change_no_token_before(folder: Path, ranks1: Ranks) -> None:
    rows = prompts()
    free = generate(ranks1, folder, rows)
    responses = [response.tolist() for response in free.ragged("response_ids")]
    token = responses[0][5]
    ends = [response.index(token) if token in response else None for response in responses]
    found = generate(ranks1, folder, rows, stop_token_ids=[token])
    assert_alike(found, cut(free, ends))
    assert not found.dense("truncated")[0] and free.dense("truncated")[0]
    assert found.dense("finish_reason")[0] == "stop" and free.dense("finish_reason")[0] == "length"


def test_stop_strings_end_a_response_with_the_token_that_completes_them(folder: Path, ranks1: Ranks) -> None:
    """Two characters, which are two tokens here; some tokens of the model have no text."""
    rows, decode = prompts(), load_decoder(folder)
    free = generate(ranks1, folder, rows)
    texts = [[decode(r[: end + 1]) for end in range(len(r))] for r in free.ragged("response_ids")]
    longest = max((text[-1] for text in texts), key=len)
    stop = longest[2:4]
    ends = [next((end for end, text in enumerate(text) if stop in text), None) for text in texts]
    found = generate(ranks1, folder, rows, stop=[stop, "no such text"])
    assert_alike(found, cut(free, ends))
    ended = [row for row, end in enumerate(ends) if end is not None]
    assert ended and found.ragged("response_ids").lengths.sum() < free.ragged("response_ids").lengths.sum()
    assert not found.dense("truncated")[ended].any()
    assert set(found.dense("finish_reason")[ended]) == {"stop"}


def test_a_row_that_ends_at_the_limit_was_not_truncated(folder: Path, ranks1: Ranks) -> None:
    rows = prompts(40)
    [(free, metrics)] = ranks1.run(rank_functions.generate, folder, Layout(), rows, temperature=2.0)
    responses, truncated = free.ragged("response_ids"), free.dense("truncated")
    assert truncated.dtype == bool and 0 < truncated.sum() < 40
    for response, was in zip(responses, truncated, strict=True):
        assert was == (response[-1] not in (END, 1)) and (len(response) == 12 or not was)
    assert free.dense("finish_reason").tolist() == ["length" if was else "end" for was in truncated]
    assert metrics["rollout/truncated_fraction"] == truncated.mean()
    assert metrics["response_length/max"] == 12 and metrics["response_length/mean"] == responses.lengths.mean()
    row = int(np.flatnonzero(~truncated)[0])
    limit = int(responses.lengths[row])
    short = generate(ranks1, folder, rows.select([row]), temperature=2.0, max_response_tokens=limit)
    assert short.ragged("response_ids").lengths.tolist() == [limit] and not short.dense("truncated")[0]


def test_rows_carry_the_version_that_sampled_them(folder: Path, ranks1: Ranks) -> None:
    rows = prompts()
    old = rows | generate(ranks1, folder, rows)
    [version] = {one for one, _ in old.ragged("weight_version").values.tolist()}
    assert old.ragged("weight_version") == one_run(version, old.lengths("response_ids"))
    assert ranks1.run(rank_functions.lag, folder, old) == [
        {"rollout/version_lag_max": 0.0, "rollout/version_lag_mean": 0.0}
    ]
    ranks1.run(rank_functions.learn, folder, old)
    assert ranks1.run(rank_functions.lag, folder, old) == [
        {"rollout/version_lag_max": 1.0, "rollout/version_lag_mean": 1.0}
    ]
    new = rows | generate(ranks1, folder, rows)
    assert new.ragged("weight_version") == one_run(version + 1, new.lengths("response_ids"))
    mixed = join([new.select(np.arange(5)), old.select(np.arange(5))])
    assert ranks1.run(rank_functions.lag, folder, mixed) == [
        {"rollout/version_lag_max": 1.0, "rollout/version_lag_mean": 0.5}
    ]
    of_both = Ragged.of([[[version, 1], [version + 1, n - 1]] for n in new.lengths("response_ids").tolist()])
    others = [name for name in new.columns if name != "weight_version"]
    [found] = ranks1.run(rank_functions.lag, folder, new.select_columns(others) | Batch(weight_version=of_both))
    assert found["rollout/version_lag_max"] == 1.0
    assert found["rollout/version_lag_mean"] == pytest.approx((1 / new.lengths("response_ids")).mean())


def test_rows_of_which_the_engines_disagree_are_not_trained_on(folder: Path, ranks1: Ranks) -> None:
    """Whatever the reason, if the newest weights sampled them; of older ones they may."""
    rows = prompts()
    new = rows | generate(ranks1, folder, rows)
    log_probs = new.ragged("rollout_log_probs")
    others = [name for name in new.columns if name != "rollout_log_probs"]
    off = new.select_columns(others) | Batch(rollout_log_probs=log_probs.like(log_probs.values - 0.01))
    with pytest.raises(AssertionError, match=r"generation and training lie 0.01 apart in the mean of .* tokens"):
        ranks1.run(rank_functions.apart, folder, off)
    ranks1.run(rank_functions.learn, folder, new)
    assert ranks1.run(rank_functions.apart, folder, off)[0] > 0.01


def test_samples_that_share_their_prompts_computation_are_those_of_rows_alone(folder: Path, ranks1: Ranks) -> None:
    """vLLM keeps whole blocks of a prompt, of 32 tokens on a CPU and 16 on a GPU."""
    kept = 160
    rng = np.random.default_rng(5)
    group = Ragged.of([rng.integers(2, 44, 170)] * 4)
    rows = Batch(prompt_ids=group, stream_id=np.arange(4))
    [(shared, metrics)] = ranks1.run(rank_functions.generate, folder, Layout(), rows)
    assert metrics["rollout/prefix_cache_hit_fraction"] == pytest.approx(3 * kept / (4 * 170))
    for row in range(4):
        [(alone, metrics)] = ranks1.run(rank_functions.generate, folder, Layout(), rows.select([row]))
        assert metrics["rollout/prefix_cache_hit_fraction"] == 0, "nothing is left of the call before"
        assert_alike(alone, shared.select([row]))


def test_rows_are_streamed_as_they_finish(folder: Path, ranks1: Ranks) -> None:
    rows = prompts(40)
    [(streamed, _)] = ranks1.run(rank_functions.streamed, folder, rows)
    lengths = [len(found.tokens) for found in streamed]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert sorted(found.row for found in streamed) == list(range(40)) != [found.row for found in streamed]


def test_the_role_streams_what_it_would_give_at_once(folder: Path, ranks1: Ranks) -> None:
    rows = prompts(40)
    [(pieces, said)] = ranks1.run(rank_functions.stream, folder, rows, step=4, temperature=2.0)
    [(whole, expected)] = ranks1.run(rank_functions.generate, folder, Layout(), rows, step=4, temperature=2.0)
    lengths = [part.lengths("response_ids").tolist() for _, part in pieces]
    assert len(pieces) > 2 and all(len(set(together)) == 1 for together in lengths), "those that finish together"
    assert [one[0] for one in lengths] == sorted({n for together in lengths for n in together})
    order = np.argsort(np.concatenate([numbers for numbers, _ in pieces]))
    streamed = join([part for _, part in pieces]).select(order)
    assert streamed.columns == whole.columns
    assert streamed.ragged("response_ids") == whole.ragged("response_ids")
    assert same(streamed.ragged("rollout_log_probs").values, whole.ragged("rollout_log_probs").values)
    assert streamed.ragged("weight_version") == whole.ragged("weight_version")
    for column in ("finish_reason", "truncated", "sampling_temperature"):
        assert streamed.dense(column).tolist() == whole.dense(column).tolist()
    of_rows = [name for name in expected if name.startswith(("rollout/", "response_length/", "perf/"))]
    assert len(of_rows) == 5 and [said[name] for name in of_rows] == [expected[name] for name in of_rows]


def test_a_stream_that_is_left_early_leaves_nothing_behind(folder: Path, ranks1: Ranks) -> None:
    rows = prompts(40)
    [(all_rows, _)] = ranks1.run(rank_functions.streamed, folder, rows)
    [(some, left)] = ranks1.run(rank_functions.streamed, folder, rows, take=2)
    assert left == 0 and [found.row for found in some] == [found.row for found in all_rows[:2]]
    [(again, _)] = ranks1.run(rank_functions.streamed, folder, rows)
    assert [found.tokens.tolist() for found in again] == [found.tokens.tolist() for found in all_rows]


def test_nothing_else_is_done_while_rows_are_under_way(folder: Path, ranks1: Ranks) -> None:
    [said] = ranks1.run(rank_functions.interrupted, folder, prompts(40))
    tried = ("new weights were given", "sleep was asked for", "generation was asked for")
    rest = "while rows of a stream are under way; read it to its end, or close it, first"
    assert said == [f"{what} {rest}" for what in tried]


WHOLE = ["wake weights", "shard", "wake kv_cache", "row", "sleep"]
"""A call that samples, where a sleep loses the weights and nobody has brought them before."""


def test_memory_comes_back_for_weights_then_for_the_cache_and_goes_after_generation(
    folder: Path, ranks1: Ranks
) -> None:
    """Where a sleep loses the weights, the next call refits even if they are of the same version."""
    twice = ("generate_sequences", "generate_sequences")
    assert ranks1.run(rank_functions.orders, folder, prompts(), *twice, forgets=True) == [([WHOLE, WHOLE], [0, 0])]
    if platform().name == "cpu":
        [(found, ages)] = ranks1.run(rank_functions.orders, folder, prompts(), *twice, forgets=False)
        assert (found, ages) == ([["shard", "row"], ["row"]], [0, 0])


def test_weights_that_a_schedule_synced_are_not_brought_again(folder: Path, ranks1: Ranks) -> None:
    synced = ("sync_weights", "sync_weights", "generate_sequences")
    [(found, _)] = ranks1.run(rank_functions.orders, folder, prompts(), *synced, forgets=True)
    assert found == [["wake weights", "shard"], [], ["wake kv_cache", "row", "sleep"]]


@pytest.mark.parametrize("forgets", [True, False])
def test_a_flow_that_learns_and_samples_again_never_samples_from_older_weights(
    forgets: bool, folder: Path, ranks1: Ranks
) -> None:
    """Nobody syncs after the update: the rank compares versions itself."""
    flow = ("sync_weights", "generate_sequences", "learn", "generate_sequences", "learn", "generate_sequences")
    [(found, ages)] = ranks1.run(rank_functions.orders, folder, prompts(), *flow, forgets=forgets)
    assert ages == [0, 0, 0]
    assert ["shard" in calls for calls in found] == [True, False, False, True, False, True]


def test_synced_weights_make_room_for_a_model_that_is_used_before_they_are(folder: Path, ranks1: Ranks) -> None:
    flow = ("sync_weights", "compute_log_prob", "generate_sequences")
    [(found, ages)] = ranks1.run(rank_functions.orders, folder, prompts(), *flow, forgets=True)
    assert found == [["wake weights", "shard"], ["sleep"], WHOLE] and ages == [0]


def test_vllm_sleeps_by_the_names_that_the_platform_uses(ranks1: Ranks) -> None:
    """What a GPU is asked (`tests/parallel/test_platform.py`) exists in the vLLM that is installed."""
    [(sleep, wake, parts, setting)] = ranks1.run(rank_functions.sleeping)
    assert "level" in sleep and "tags" in wake and parts == {"weights", "kv_cache"} and setting
