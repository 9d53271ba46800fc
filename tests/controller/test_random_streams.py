"""Random streams: no two rows share one, and each has its own wherever and in whatever company it is sampled."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow import dispatch
from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch, BatchRef
from hybridflow.batch.joining import concat
from hybridflow.controller import Supervisor, put
from hybridflow.dispatch import Call, methods, using
from hybridflow.dispatch.random_streams import stream_ids, with_streams
from hybridflow.parallel.layout import Layout
from hybridflow.roles import ActorRole
from hybridflow.roles.rollout import RolloutRole
from hybridflow.tasks import Prompts
from hybridflow.tasks.addition import ALPHABET, Addition
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.trainer import step_rows
from hybridflow.trainer.step_rows import drawn
from tests.controller.stage import Stage


class Small(Addition):
    """Three questions."""

    def size(self, split: str) -> int:
        return 3


def rows_of(count: int) -> BatchRef:
    return BatchRef.from_local(Batch(n=np.arange(count)))


def placed(count: int, first: int = 0) -> BatchRef:
    """Rows as a draw gives them."""
    return rows_of(count).placed(np.arange(first, first + count))


def ids(rows: BatchRef, step: int = 0, number: int = 0) -> list[int]:
    found: list[int] = stream_ids(rows, step, number).tolist()
    return found


def all_differ(*of: list[int]) -> bool:
    together = [one for many in of for one in many]
    return len(set(together)) == len(together)


def test_a_prompt_that_comes_twice_in_a_step_has_two_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three prompts, eight a step: each comes two or three times, with one `sample_id`."""
    monkeypatch.setattr(step_rows, "put", BatchRef.from_local)
    prompts = Prompts(Small(char_tokenizer(ALPHABET)), "train", 8, seed=1)
    algorithm = object.__new__(Algorithm)
    rows = [drawn(algorithm, prompts, number).repeat(4) for number in range(3)]
    assert len({*prompts.at(0).tolist()}) == 3
    assert all_differ(*(ids(row, step) for step, row in enumerate(rows)), *(ids(row, 0, 1) for row in rows))
    assert ids(rows[1], 1) == ids(drawn(algorithm, prompts, 1).repeat(4), 1), "a resumed run has them again"


def test_steps_calls_places_and_copies_have_streams_of_their_own() -> None:
    rows, others = placed(10).repeat(10), placed(10, first=10).repeat(10)
    assert all_differ(*(ids(r, step, number) for r in (rows, others) for step in range(3) for number in range(3)))


def test_a_stream_is_a_rows_own_in_any_company_and_order() -> None:
    rows = placed(6).repeat(3)
    of = np.array(ids(rows))
    order = np.random.default_rng(0).permutation(18)
    assert ids(rows.select(order)) == of[order].tolist()
    assert ids(rows.slice(5, 11)) == of[5:11].tolist()
    assert ids(placed(6).repeat(3, interleave=False)) == of[np.arange(18).reshape(6, 3).T.ravel()].tolist()
    assert ids(rows.select_columns(["group_id"]) | BatchRef.from_local(Batch(m=np.arange(18)))) == of.tolist()


def test_rows_of_one_place_or_of_none_have_streams_of_their_own() -> None:
    same = placed(3)
    assert all_differ(ids(concat([same, same, same]).repeat(2)))
    assert all_differ(ids(same.select([0, 0, 1, 0])))
    assert all_differ(ids(same.repeat(2).repeat(2)))
    assert all_differ(ids(rows_of(4))) and all_differ(ids(rows_of(4).repeat(3)))
    assert all_differ(ids(concat([same, rows_of(3)])))
    assert ids(rows_of(4)) == ids(rows_of(4)), "and the same again in the next run"


def test_rows_may_bring_their_streams() -> None:
    rows = BatchRef.from_local(Batch(n=np.arange(2), stream_id=np.array([5, 5])))
    assert with_streams(Call((rows,)), 0, 0).rows() is rows
    marked = with_streams(Call((3, placed(2)), {"more": rows_of(2)}), None, 0)
    assert [ref.driver_columns["stream_id"].tolist() for ref in marked.refs] == [ids(placed(2), -1)] * 2


def test_what_generates_samples_however_it_is_declared() -> None:
    class Other(RolloutRole[Batch]):
        @using("dp_proto", needs=["prompt_ids"], gives=["response_ids"])
        def generate_sequences(self, prompts: Batch) -> Batch:  # type: ignore[override]
            return prompts

    for role in (ActorRole, RolloutRole, Other):
        sampling = {name for name, method in methods(role).items() if method.samples}
        assert sampling == {"generate_sequences", "stream_sequences"}


def test_calls_are_counted_in_their_step_whichever_role_they_are_made_on() -> None:
    supervisor = Supervisor()
    assert [supervisor.count_sampling() for _ in range(2)] == [0, 1]
    supervisor.begin_step(0)
    assert [supervisor.count_sampling() for _ in range(3)] == [0, 1, 2]
    supervisor.begin_step(1)
    assert supervisor.count_sampling() == 0


@pytest.mark.ranks
@pytest.mark.parametrize("layout", [Layout(data=4), Layout(2, 1, 2)], ids=["d4", "t2d2"])
def test_a_rank_is_given_the_streams_of_its_rows(stage: Stage, layout: Layout) -> None:
    scribe, rows = stage.start_role_once("scribe", layout), put(Batch(n=np.arange(5))).placed(np.arange(5)).repeat(2)
    stage.supervisor.finish_step()  # counts begin anew where the step is another
    expected = []
    for step in (0, 1):
        stage.supervisor.begin_step(step)
        drawn = scribe.draw(rows).get()
        assert not drawn.dense("before").any(), "what other calls drew is not counted"
        at_once = drawn.dense("drawn_from").tolist()
        pieces = dispatch.concat([part for _, part in scribe.draw_one_by_one(rows)])
        expected += [ids(rows, step, 0), ids(rows, step, 1)]
        assert [at_once, pieces.get().dense("drawn_from").tolist()] == expected[-2:]
    stage.supervisor.finish_step()
    assert all_differ(*expected)


@pytest.mark.ranks
def test_rows_that_two_calls_sample_between_them_have_the_streams_of_one_call(stage: Stage) -> None:
    scribe, rows = stage.start_role_once("scribe"), put(Batch(n=np.arange(5))).placed(np.arange(5)).repeat(2)
    stage.supervisor.finish_step()
    stage.supervisor.begin_step(0)
    numbered = scribe.number_streams(rows)
    parts = [scribe.draw(numbered.slice(0, 4)), scribe.draw(numbered.slice(4, 10))]
    assert concat(parts).get().dense("drawn_from").tolist() == ids(rows, 0, 0)
    assert scribe.draw(rows).get().dense("drawn_from").tolist() == ids(rows, 0, 1), "they were counted as one"
    stage.supervisor.finish_step()
