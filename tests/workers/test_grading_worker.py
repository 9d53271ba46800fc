"""What a rank makes of the grades of several graders: sums, columns, metrics, values of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Config, FullDisk
from hybridflow.dispatch import methods, with_columns
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.roles import RewardRole
from hybridflow.tasks.addition import ALPHABET
from hybridflow.tasks.grades import settled
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.workers import Context
from hybridflow.workers.cost import CostWorker
from hybridflow.workers.reward import RewardWorker
from hybridflow.workers.row_grades import token_at
from tests.small_disk import room_for
from tests.tasks import child_graders  # noqa: F401  registers the graders

pytestmark = pytest.mark.processes

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """`make(worker class, **settings of its section)`; what it starts ends with the test."""
    char_tokenizer(ALPHABET).save_pretrained(tmp_path)
    made: list[Any] = []

    def build(worker: Any, /, **settings: Any) -> Any:
        config = Config()
        config.actor.model.path = str(tmp_path)
        config.reward.grader = "exact"
        section = "cost" if worker is CostWorker else "reward"
        for name, value in settings.items():
            setattr(getattr(config, section), name, value)
        made.append(worker(Context(config, Layout(), 0, section)))
        return made[-1]

    yield build
    for worker in made:
        worker.close()


def build_rows(*texts: str, answer: str = "12", **columns: Any) -> Batch:
    ids = char_tokenizer(ALPHABET)(list(texts), add_special_tokens=False)["input_ids"]
    given = {name: np.array(values, dtype=object) for name, values in columns.items()}
    prompts = Ragged.of([ids[0]] * len(texts), np.int64)
    answers = np.array([answer] * len(texts), dtype=object)
    return Batch(prompt_ids=prompts, response_ids=Ragged.of(ids, np.int64), answer=answers, **given)


def test_rewards_are_the_weighted_sum_and_each_grader_is_a_column_and_a_metric(make: Make, tmp_path: Path) -> None:
    worker = make(RewardWorker, graders={"exact": 1.0, "doubling": -0.1}, grader_options={"doubling": {"times": 3.0}})
    rows = build_rows("12", "7", "")
    found = worker.compute_reward(rows)
    assert found.dense("grades").tolist() == [[1.0, 6.0], [0.0, 3.0], [0.0, 0.0]]
    assert (
        found.dense("rewards").tolist() == pytest.approx([0.4, -0.3, 0.0])
        and found.dense("rewards").dtype == np.float32
    )
    metrics = worker.context.metrics
    assert (metrics["reward/exact/mean"], metrics["reward/doubling/max"]) == (pytest.approx(1 / 3), 6.0)
    assert (
        found.columns
        == with_columns(methods(RewardRole), RewardRole.more_columns(worker.context.config))["compute_reward"].gives
    ), "the role says that it gives them"
    worker.log_rollouts(rows | found, step=0, folder=str(tmp_path / "rollouts"))
    first = json.loads((tmp_path / "rollouts/rank0.jsonl").read_text().splitlines()[0])
    assert first["grades"] == {"exact": 1.0, "doubling": 6.0}


def test_a_row_of_which_any_grade_has_failed_has_no_reward(make: Make) -> None:
    worker = make(RewardWorker, graders={"exact": 1.0, "odd": 1.0}, max_failed_share=0.5)
    found = worker.compute_reward(build_rows("12", "3", answer="0"))
    assert np.array_equal(found.dense("rewards"), [1.0, np.nan], equal_nan=True)
    metrics = Metrics()
    settled(found, None, worker.context.config, metrics)
    assert metrics["reward/failed_grades"] == 1 and worker.context.metrics["reward/odd/mean"] == 1.0


def test_one_grader_gives_rewards_alone(make: Make) -> None:
    worker = make(RewardWorker)
    assert worker.compute_reward(build_rows("12")).columns == ("rewards",)
    assert {*worker.context.metrics} == {"reward/memory_peak_gib"}, "of its process, and none of a grader's own"
    assert RewardRole.more_columns(worker.context.config) == {}
    baseline = worker.compute_baseline(build_rows("12", "1"))
    assert baseline.dense("baseline_rewards").tolist() == [1.0, 0.0]


def test_a_grader_of_some_sources_grades_their_rows_alone(make: Make, tmp_path: Path) -> None:
    """So it is no part of the others' rewards, nor of its own metrics there. The model's score is of a source too."""
    weights = {"last_number": 1.0, "exact": 1.0, "doubling": 0.5, "reward_model": 2.0}
    of = {"last_number": ["sums"], "exact": ["words", "more"], "reward_model": ["words"]}
    worker = make(RewardWorker, worker="model", graders=weights, grader_sources=of)
    rows = build_rows("12", "7", "+12", source=["sums", "words", "words"])
    found = worker.rewards(rows, np.array([np.nan, 0.5, 0.25]))
    assert found.dense("grades").tolist() == [[1.0, 0, 4.0, 0], [0, 0.0, 2.0, 0.5], [0, 0.0, 6.0, 0.25]]
    assert found.dense("rewards").tolist() == [3.0, 2.0, 3.5]
    metrics = worker.context.metrics
    assert (metrics["reward/last_number/mean"], metrics["reward/exact/max"]) == (1.0, 0.0)
    assert metrics["reward/reward_model/min"] == 0.25
    worker.log_rollouts(rows | found, step=0, folder=str(tmp_path / "rollouts"))
    lines = [json.loads(line) for line in (tmp_path / "rollouts/rank0.jsonl").read_text().splitlines()]
    assert lines[0]["grades"] == {"last_number": 1.0, "doubling": 4.0}
    assert lines[1]["grades"] == {"exact": 0.0, "doubling": 2.0, "reward_model": 0.5}
    answered = worker.compute_reward(rows)
    assert answered.dense("grades").shape == (3, 3), "a validation does not ask the model"
    assert worker.compute_answer_key(rows).dense("answer_key").tolist() == ["12", "7", "+12"]
    with pytest.raises(ValueError, match=r"source 'words', and reward.grader_sources leaves no grader"):
        make(RewardWorker, graders={"exact": 1.0}, grader_sources={"exact": ["sums"]}).compute_answer_key(rows)


def test_what_a_response_comes_to_depends_on_the_options_of_its_grader(make: Make) -> None:
    worker = make(RewardWorker, grader="regex", grader_options={"regex": {"pattern": r"=(\d)"}})
    rows = build_rows("1+1=2", "2+0=2", "2", " 2 ")
    assert worker.compute_answer_key(rows).dense("answer_key").tolist() == ["2", "2", "", ""]
    rows |= Batch(rewards=np.array([1.0, np.nan, 0.0, 0.0]))
    assert worker.compute_answer_key(rows).dense("answer_key").tolist() == ["2", "2+0=2", "", ""]


def test_a_users_own_column_of_that_name_is_written_as_it_is(make: Make, tmp_path: Path) -> None:
    worker = make(RewardWorker)
    worker.log_rollouts(build_rows("12", grades=[0.5]), step=0, folder=str(tmp_path / "rollouts"))
    assert json.loads((tmp_path / "rollouts/rank0.jsonl").read_text())["grades"] == 0.5


def test_the_first_rows_are_written_token_by_token(make: Make, tmp_path: Path) -> None:
    worker = make(RewardWorker)
    rows = build_rows("12", "7", "3")
    worker.context.config.trainer.log_token_rows = 2
    worker.log_rollouts(rows, step=0, folder=str(tmp_path / "validation"))
    lengths = rows.ragged("response_ids").lengths
    advantages = Ragged.of([np.arange(length, dtype=np.float32) for length in lengths])
    worker.log_rollouts(rows | Batch(advantages=advantages), step=0, folder=str(tmp_path / "rollouts"))
    lines = [json.loads(line) for line in (tmp_path / "rollouts/rank0.jsonl").read_text().splitlines()]
    assert [line.get("by_token", {}).get("advantages") for line in lines] == [[0.0, 1.0], [0.0], None]
    assert [len(line["by_token"]["text"]) for line in lines[:2]] == [2, 1]
    assert "by_token" not in (tmp_path / "validation/rank0.jsonl").read_text(), "validations have no advantages"


def test_values_of_tokens_are_a_column_over_the_response(make: Make) -> None:
    """0.25 a token, and 1 for the token with which the first character ends; of several graders their weighted sum."""
    worker = make(RewardWorker, grader="steps")
    assert "token_rewards" in RewardRole.more_columns(worker.context.config)["compute_reward"]
    found = worker.compute_reward(build_rows("12", "", "7"))
    assert [row.tolist() for row in found.ragged("token_rewards")] == [[1.25, 0.25], [], [1.25]]
    assert found.dense("rewards").tolist() == [0.5, 0.5, 0.5]
    assert worker.context.metrics["reward/token_rewards/max"] == 1.5
    worker = make(RewardWorker, graders={"exact": 1.0, "steps": 0.5})
    found = worker.compute_reward(build_rows("12"))
    assert found.ragged("token_rewards")[0].tolist() == [0.625, 0.125] and found.dense("rewards").tolist() == [1.25]


@pytest.mark.parametrize(("text", "token"), [("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2), ("other", 2)])
def test_a_step_ends_with_the_token_that_completes_it(text: str, token: int) -> None:
    pieces = {1: "a", 2: "bc", 3: "d"}
    assert token_at([1, 2, 3], text, lambda ids: "".join(pieces[i] for i in ids)) == token


def test_a_grader_of_rows_sees_what_columns_say(make: Make) -> None:
    worker = make(RewardWorker, grader="sees")
    rows = build_rows(
        "12", metadata=['{"level": 3}'], messages=['[{"role": "user", "content": "say"}]'], source=["sums"],
        finish_reason=["length"], truncated=[True], sample_id=[2**70],
    )  # fmt: skip
    assert worker.compute_reward(rows).dense("rewards").tolist() == [1.0]
    parts = [name for name in worker.context.metrics if name.startswith("reward/sees/")]
    seen = {name.removeprefix("reward/sees/").rpartition("/")[0] for name in parts}
    assert seen == {"12", "length", "sums", str(2**70), "level", "tokens", "truncated", "say"}
    bare = make(RewardWorker, grader="sees")
    assert bare.compute_reward(build_rows("12")).dense("rewards").tolist() == [1.0], "rows may have none of these"


def test_a_deadline_is_told_with_its_key(make: Make) -> None:
    worker = make(CostWorker, grader="sleeps", grader_deadline_s=0.3)
    told = r"on the response '12' \(answer '12'\): it gave no grade within 0.3 s \(cost.grader_deadline_s\)"
    with pytest.raises(ValueError, match=f"grader 'sleeps' failed {told}"):
        worker.compute_cost(build_rows("12"))
    worker = make(CostWorker, grader="sleeps", grader_deadline_s=0.3, max_failed_share=1.0)
    assert np.isnan(worker.compute_cost(build_rows("12")).dense("costs")).all()


def test_rows_that_find_no_room_end_the_run_or_are_counted(make: Make, tmp_path: Path) -> None:
    worker = make(RewardWorker)
    file = tmp_path / "rollouts/rank0.jsonl"
    rows = build_rows("12", "7")
    worker.log_rollouts(rows, step=0, folder=str(file.parent))
    before = file.read_text()
    with room_for(len(before) + 40):
        with pytest.raises(DiskError, match=f"^File too large: {file}$"):
            worker.log_rollouts(rows, step=1, folder=str(file.parent))
        assert file.read_text() == before
        worker.context.config.trainer.full_disk = FullDisk.go_on
        worker.log_rollouts(rows, step=1, folder=str(file.parent))
        assert file.read_text() == before
        assert worker.context.metrics["rollout/unwritten_rows"] == 2.0
