"""Rollouts that are conversations: the tokens that were sampled, and those in between that nobody learns from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.weight_versions import NO_VERSION
from hybridflow.parallel.layout import Layout
from hybridflow.tasks.tokenizer import char_tokenizer, load_decoder
from tests.conftest import GetModel
from tests.engines.rank_functions import same
from tests.spmd import Ranks
from tests.tiny import ALPHABET
from tests.workers import actor_rank_functions as rank_functions
from tests.workers.test_actor import ENDS, TALKS, assert_alike, generate, prompts, talking

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]


@pytest.fixture(scope="module")
def folder(tiny: GetModel) -> Path:
    return tiny(vocab=70)


def converse(ranks: Ranks, folder: Path, rows: Batch, **environment: Any) -> tuple[list[int], Batch, dict[str, float]]:
    settings = {**TALKS, **environment}
    [(order, found, metrics)] = ranks.run(rank_functions.converse, folder, Layout(), rows, settings, **ENDS)
    return np.concatenate(order).tolist(), found, metrics


def test_what_the_policy_wrote_is_learned_from_and_what_it_was_told_is_not(folder: Path, ranks1: Ranks) -> None:
    rows = talking(*[""] * 8, "short")
    _, found, metrics = converse(ranks1, folder, rows)
    decode = load_decoder(folder)
    masks = found.ragged("loss_mask")
    told = []
    for response, mask in zip(found.ragged("response_ids"), masks, strict=True):
        starts = np.flatnonzero(np.diff(mask, prepend=1) < 0)
        told.append([decode(response[at : at + 3].tolist()) for at in starts])
        assert mask[0] == mask[-1] == 1, "a turn of the policy comes first and last"
    assert all(turn[-1] == str(number) for turns in told for number, turn in enumerate(turns))
    assert max(map(len, told)) == 2, "between three turns"
    assert not found.ragged("rollout_log_probs").values[masks.values == 0].any()
    assert found.dense("turns").tolist() == [len(turns) + 1 for turns in told]
    rewards = [row[row != 0].tolist() for row in found.ragged("turn_rewards")]
    assert rewards == [[0.5, 1.5, 2.5][:turns] for turns in found.dense("turns")]
    assert found.dense("finish_reason")[-1] != "turns" and "turns" in found.dense("finish_reason")
    assert metrics["perf/response_tokens"] == masks.values.sum() < len(masks.values), "what it was told is not sampled"
    assert 0 <= metrics["rollout/prefix_cache_hit_fraction"] < 1
    assert metrics["environment/asked"] == metrics["environment/turns"] == found.dense("turns").mean()
    # The training engine sees the tokens that were sampled, after those that they were sampled after.
    assert ranks1.run(rank_functions.apart, folder, rows | found)[0] < 1e-4
    learned = LearnedTokens.of(found)
    assert 0 < learned.lengths.sum() < len(masks.values)


def test_a_conversation_of_one_turn_is_a_response(folder: Path, ranks1: Ranks) -> None:
    """Bit for bit, so an environment changes nothing before it speaks."""
    rows = talking(*[""] * 10)
    plain = generate(ranks1, folder, prompts(), max_response_tokens=6, **ENDS)
    _, found, _ = converse(ranks1, folder, rows, max_turns=1)
    for column in ("response_ids", "rollout_log_probs"):
        assert same(found.ragged(column).values, plain.ragged(column).values)
    assert found.ragged("loss_mask").values.all()


def test_a_failed_environment_masks_its_row_alone(folder: Path, ranks1: Ranks) -> None:
    _, found, metrics = converse(ranks1, folder, talking("fails", "", "fails"))
    turns = found.dense("turns")
    failures = found.dense("environment_failure").tolist()
    assert failures == ["RuntimeError: the weather" if n > 1 and row != 1 else "" for row, n in enumerate(turns)]
    assert any(failures)
    for row, failure in enumerate(failures):
        assert found.ragged("loss_mask")[row].any() == (not failure)
        assert found.ragged("turn_rewards")[row].any() == (not failure), "no reward is no reward of 0"
    assert metrics["environment/failed_share"] == sum(map(bool, failures)) / 3


def test_a_chat_goes_on_by_its_template(folder: Path, ranks1: Ranks, tmp_path: Path) -> None:
    tokenizer = char_tokenizer(ALPHABET)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|turn|>{{ m.role }} {{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant {% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    chat = json.dumps([{"role": "user", "content": "5"}])
    rows = talking(*[""] * 6) | Batch(messages=np.array([chat] * 6, dtype=object))
    layout = Layout()
    [(_, found, _)] = ranks1.run(rank_functions.converse, folder, layout, rows, TALKS, tokenizer=tmp_path, **ENDS)
    decode = load_decoder(tmp_path, special_tokens=True)
    told = []
    for response, mask in zip(found.ragged("response_ids"), found.ragged("loss_mask"), strict=True):
        told += [decode(response[between].tolist()) for between in _runs_of_zeros(mask)]
    assert told
    for text in told:
        assert re.fullmatch(r"(<\|end\|>)?<\|turn\|>user [0-9]{3}<\|end\|><\|turn\|>assistant ", text), text


def _runs_of_zeros(mask: np.ndarray) -> list[np.ndarray]:
    """The places of each run of zeros."""
    zeros = np.flatnonzero(mask == 0)
    return [run for run in np.split(zeros, np.flatnonzero(np.diff(zeros) > 1) + 1) if len(run)]


def test_no_conversation_waits_for_a_slow_one(folder: Path, ranks1: Ranks) -> None:
    order, found, _ = converse(ranks1, folder, talking("slow", *[""] * 7))
    assert order[-1] == 0
    assert found.dense("turns").max() == 3


def test_in_step_it_repeats_bit_for_bit(folder: Path, ranks1: Ranks) -> None:
    rows = talking("", "slow", *[""] * 6)
    one, other = (converse(ranks1, folder, rows, in_step=True)[1] for _ in range(2))
    for column in ("response_ids", "rollout_log_probs", "loss_mask"):
        assert same(one.ragged(column).values, other.ragged(column).values)


def test_over_many_calls_it_is_what_it_is_in_one(folder: Path, ranks1: Ranks) -> None:
    """Bit for bit where rows begin together; and no call waits for an environment that is slow."""
    rows = talking("", "slow", *[""] * 6)
    [(_, one, _)] = ranks1.run(rank_functions.converse, folder, Layout(), rows, {**TALKS, "in_step": True}, **ENDS)
    over_calls = (folder, Layout(), [rows], {**TALKS, "in_step": True})
    [(found, without)] = ranks1.run(rank_functions.converse_over_calls, *over_calls, **ENDS)
    for column in ("response_ids", "rollout_log_probs", "loss_mask", "turn_rewards", "weight_version"):
        assert same(found.ragged(column).values, one.ragged(column).values)
    assert without >= 4, "the slow one answers after ten times as long as a call waits"


def test_turns_go_on_with_other_weights_also_while_all_wait_for_their_environments(folder: Path, ranks1: Ranks) -> None:
    """Tokens are the same, as the weights are; each is of the version that sampled it."""
    rows = talking("", "slow", *[""] * 6)
    [(_, one, _)] = ranks1.run(rank_functions.converse, folder, Layout(), rows, TALKS, **ENDS)
    parts = [rows.select(np.arange(3)), rows.select(np.arange(3, 8))]
    over_calls = (folder, Layout(), parts, TALKS)
    [(found, _)] = ranks1.run(rank_functions.converse_over_calls, *over_calls, renews=True, **ENDS)
    assert_alike(found, one)
    for runs, mask in zip(found.ragged("weight_version"), found.ragged("loss_mask"), strict=True):
        versions = np.repeat(*runs.reshape(-1, 2).T)
        assert ((versions == NO_VERSION) == (mask == 0)).all()
        assert (np.diff(versions[mask != 0]) >= 0).all()
    slow = found.ragged("weight_version")[1].reshape(-1, 2)[:, 0]
    assert len({*slow.tolist()}) > 2, "its turns are of several versions"
