"""The state of a conversation: columns of one length, masks where the policy is silent, and why it ended."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.environments.conversation import END, FAILED, LENGTH, TURNS, Conversation, Limits, turn_seed

TOKENS = st.lists(st.integers(2, 50), min_size=1, max_size=6)
ANSWERS = st.tuples(TOKENS, TOKENS, st.floats(-2, 2, width=32), st.booleans())


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 10), st.lists(ANSWERS, min_size=1, max_size=8))
def test_whatever_is_said_columns_fit_and_limits_hold(
    max_turns: int, max_tokens: int, turn_tokens: int, answers: list[tuple[list[int], list[int], float, bool]]
) -> None:
    talk = Conversation(3, [1, 2], Limits(max_turns, max_tokens, turn_tokens))
    written: list[int] = []
    total = 0.0
    for wrote, between, reward, done in answers:
        assert 1 <= talk.room <= turn_tokens
        wrote = wrote[: talk.room]
        cut = len(wrote) == talk.room
        talk.wrote(wrote, [-0.5] * len(wrote), cut=cut)
        assert talk.turn_tokens == wrote
        written += wrote
        total += reward
        talk.answered(between, reward, done=done)
        assert bool(talk.ended_by) == (done or cut or talk.turns == max_turns or talk.room < 1 or _full(talk, between))
        if talk.ended_by:
            break
    record = talk.record()
    assert len(talk.tokens) == len(talk.log_probs) == len(record.loss_mask) == len(record.rewards) <= max_tokens
    assert [token for token, mask in zip(talk.tokens, record.loss_mask, strict=True) if mask] == written
    assert all(value == -0.5 * mask for value, mask in zip(talk.log_probs, record.loss_mask, strict=True))
    assert record.sampled_tokens == len(written) and record.prompted_tokens >= 2 * record.turns + len(written) - len(
        wrote
    )
    assert abs(float(record.rewards.sum()) - total) < 1e-4
    assert not record.rewards[record.loss_mask == 0].any()
    written_by = [record.turn_index[record.loss_mask == mask] for mask in (1, 0)]
    assert sorted({*written_by[0].tolist()}) == list(range(record.turns)) and (np.diff(record.turn_index) >= 0).all()
    assert {*written_by[1].tolist()} == {*range(record.turns - 1)}, "what is said belongs to the turn that it answers"
    if talk.ended_by:
        assert record.loss_mask[-1] == 1, "what is said after the last turn, nobody reads"


def _full(talk: Conversation, between: list[int]) -> bool:
    return bool(talk.ended_by) and len(talk.tokens) + len(between) >= talk.limits.tokens


def test_why_it_ended() -> None:
    def ended(*, turns: int = 9, tokens: int = 20, done: bool = False, cut: bool = False) -> str:
        talk = Conversation(0, [1], Limits(turns, tokens, 5))
        talk.wrote([5, 6], [0.0, 0.0], cut=cut)
        talk.answered([7], 1.0, done=done)
        return talk.ended_by

    assert ended() == ""
    assert ended(done=True) == ended(done=True, turns=1) == ended(done=True, tokens=3) == END
    assert ended(cut=True) == ended(tokens=3) == LENGTH
    assert ended(done=True, cut=True) == LENGTH, "as a response of one turn that is graded: it was cut"
    assert ended(turns=1) == TURNS


def test_a_failure_leaves_nothing_to_learn_from() -> None:
    talk = Conversation(0, [1], Limits(3, 20, 5))
    talk.wrote([5, 6], [-0.1, -0.1], cut=False)
    talk.answered([7], 1.0, done=False)
    talk.wrote([8], [-0.1], cut=False)
    talk.failed("")
    record = talk.record()
    assert talk.ended_by == FAILED and record.failure
    assert talk.tokens == [5, 6, 7, 8] and not record.loss_mask.any() and not record.rewards.any()


@given(st.integers(0, 2**63 - 1))
def test_turns_have_streams_of_their_own_and_the_first_is_the_rows(seed: int) -> None:
    seeds = [turn_seed(seed, turn) for turn in range(4)]
    assert seeds[0] == seed and len(set(seeds)) == 4 and all(0 <= one < 2**63 for one in seeds)
    assert seeds == [turn_seed(seed, turn) for turn in range(4)]
