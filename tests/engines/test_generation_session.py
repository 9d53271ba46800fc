"""Sessions of an engine that can only stream: rows may join at any time, and each comes back once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Ragged
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.generation_session import Request, RoundSession
from hybridflow.engines.sampling import END, FinishedRow, Sampling


class Echo:
    """An engine whose responses are their prompts and their seeds; the last row finishes first."""

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        for row in reversed(range(len(prompts))):
            tokens = np.array([*prompts[row], seeds[row], sampling.max_tokens])
            yield [FinishedRow(row, tokens, np.zeros(len(tokens), np.float32), END, 0)]


def build_session() -> RoundSession:
    return RoundSession(cast(GenerationEngine, Echo()))


@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=4), max_size=5))
def test_rows_join_while_others_are_under_way(arrivals: list[list[tuple[int, int]]]) -> None:
    expected = {}
    found: dict[int, list[int]] = {}
    with build_session() as session:
        for group in arrivals:
            requests = []
            for max_tokens, waits in group:
                row = len(expected)
                expected[row] = [row, 7 + row, max_tokens]
                requests.append(Request(row, np.array([row]), Sampling(max_tokens=max_tokens), 7 + row))
                if waits == 0 and session.pending:
                    found |= {one.row: one.tokens.tolist() for one in session.advance()}
            session.submit(requests)
        while session.pending:
            for one in session.advance():
                assert one.row not in found
                found[one.row] = one.tokens.tolist()
    assert found == expected


def test_another_may_have_the_number_of_one_that_was_aborted() -> None:
    session = build_session()
    session.submit([Request(row, np.array([row]), Sampling(), 7) for row in range(2)])
    assert [row.row for row in session.advance()] == [1]
    session.abort([0])
    session.submit([Request(0, np.array([0]), Sampling(), 8)])
    found = []
    while session.pending:
        found += [int(row.tokens[1]) for row in session.advance()]
    assert found == [8], "its own tokens, not those of the one before it"


def test_what_is_aborted_does_not_come_back() -> None:
    session = build_session()
    session.submit([Request(row, np.array([row]), Sampling(), row) for row in range(4)])
    assert [row.row for row in session.advance()] == [3]
    session.submit([Request(9, np.array([9]), Sampling(), 9)])
    session.abort([1, 9])
    rest = []
    while session.pending:
        rest += [row.row for row in session.advance()]
    assert sorted(rest) == [0, 2]
    session.submit([Request(5, np.array([5]), Sampling(), 5)])
    session.abort([0])
    session.close()
    assert not session.pending
