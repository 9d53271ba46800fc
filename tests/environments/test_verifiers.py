"""Environments of the package verifiers, as they are: of one turn, of several, and with a tool; and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.environments import Action, Observation, Question
from hybridflow.environments.environment import make
from hybridflow.environments.environment_pool import EnvironmentOrder, EnvironmentPool, Failure
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.tasks import Example, Task, build, verifiers_task

TASKSETS = Path(__file__).parent / "tasksets"


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers_task, "find_spec", lambda name: None)
    for made in (lambda: make("verifiers", {"taskset": "x"}), lambda: rows("x")):
        with pytest.raises(HybridFlowError, match=r"pip install 'hybridflow\[verifiers\]'"):
            made()
    monkeypatch.setattr(verifiers_task, "find_spec", lambda name: None if "v1" in name else object())
    with pytest.raises(HybridFlowError, match=r"has no verifiers\.v1"):
        rows("x")


def rows(named: str, **config: Any) -> Task:
    return build("verifiers", any_text_tokenizer(), {"taskset": named, "held_out_rows": 2, "config": config})


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'hybridflow[verifiers]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TASKSETS))
        patch.setenv("PYTHONPATH", str(TASKSETS))  # for the programs that serve tools, as an installed package is
        yield


def conversation(name: str, row: Example, *turns: Action) -> list[Observation | Failure]:
    """Return what an environment in a process of its own says to turns."""
    assert row.source
    pool = EnvironmentPool(EnvironmentOrder(name, {"taskset": row.source}, deadline_s=100.0))
    try:
        pool.reset(1, Question("", row.answer, row.prompt, row.metadata))  # type: ignore[arg-type]
        found: list[Observation | Failure] = []
        for turn in turns:
            pool.step(1, turn)
            until = time.monotonic() + 200
            heard: list[tuple[int, Observation | Failure]] = []
            while not heard and time.monotonic() < until:
                heard = pool.poll(5.0)
            found.append(heard[0][1])
        return found
    finally:
        pool.close()


@pytest.mark.usefixtures("installed")
class TestRows:
    def test_a_row_is_a_task_with_its_prompt(self) -> None:
        task = rows("plain_sums")
        example = task.example("train", 0)
        question = example.prompt[1]["content"]  # type: ignore[index]
        assert example.prompt[0] == {"role": "system", "content": "A number, please."}  # type: ignore[index]
        assert eval_sum(question) == int(example.answer)  # type: ignore[arg-type]
        assert (task.size("train"), task.size("held_out")) == (4, 2)

    def test_splits_share_no_task(self) -> None:
        task = rows("guessed_number")
        ids = [
            {task.example(split, row).sample_id for row in range(task.size(split))} for split in ("train", "held_out")
        ]
        assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 10

    @pytest.mark.parametrize(
        ("taskset", "config", "problem"),
        [
            ("no_such_taskset", {}, "taskset 'no_such_taskset' not found"),
            ("plain_sums", {"taskset": {"cuont": 3}}, "cuont"),
            ("plain_sums", {"agent": {"harness": {"id": "bash"}}}, "'bash' of 'agent' runs what a model writes"),
            ("plain_sums", {"taskset": {"count": 2}}, "2 given, and the taskset 'plain_sums' has 2 tasks"),
        ],
    )
    def test_what_verifiers_does_not_take_is_told(self, taskset: str, config: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            rows(taskset, **config)


def eval_sum(question: str) -> int:
    first, _, second, *_ = question.split()
    return int(first) + int(second)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.usefixtures("installed")
class TestEpisodes:
    """Each starts verifiers' own programs, which `uv` installs on first use."""

    def test_one_turn(self) -> None:
        row = rows("plain_sums").example("train", 0)
        (right,) = conversation("verifiers", row, Action(row.answer, finish_reason="end"))
        assert right == Observation([], 1.0, True, {"right": 1.0, "length": float(len(row.answer))})

    def test_several_turns_and_a_last_one(self) -> None:
        task = rows("guessed_number")
        row = next(one for one in (task.example("train", n) for n in range(8)) if 0 < int(one.sample_id) < 9)
        told = [{"role": "user", "content": "higher"}], [{"role": "user", "content": "lower"}]
        found = conversation("verifiers", row, Action("0"), Action("9", turn=1), Action(str(row.sample_id), turn=2))
        assert found[:2] == [Observation(said) for said in told]
        assert found[2] == Observation([], 1.0, True, {"found": 1.0})
        (_, lost) = conversation("verifiers", row, Action("0"), Action("9", turn=1, last=True))
        assert lost == Observation([], 0.0, True, {"found": 0.0})

    def test_a_tool(self) -> None:
        row = rows("added_by_tool").example("train", 0)
        (tool,) = make("verifiers_tools", {"taskset": "added_by_tool"}).specs
        assert tool["function"]["name"] == "adder_add" and set(tool["function"]["parameters"]["properties"]) == {
            "a",
            "b",
        }
        function = {"name": "adder_add", "arguments": {"a": 2, "b": 3}}
        calls = [{"id": f"call0000{number}", "type": "function", "function": function} for number in (0, 1)]
        found = conversation("verifiers_tools", row, Action("", calls=calls), Action(f"so {row.answer}", turn=1))
        said = [(one["role"], one["tool_call_id"], one["content"]) for one in found[0].messages]  # type: ignore[union-attr]
        assert said == [("tool", "call00000", "5"), ("tool", "call00001", "5")]
        assert found[1] == Observation([], 1.0, True, {"right": 1.0})

    def test_tools_that_the_template_was_not_given_fail_the_row(self) -> None:
        row = rows("added_by_tool").example("train", 0)
        (failed,) = conversation("verifiers", row, Action("hm"))
        assert isinstance(failed, Failure) and "offers the tools ['adder_add']" in failed.problem

    def test_another_prompt_than_the_rows_fails_the_row(self) -> None:
        row = rows("plain_sums").example("train", 0)
        other = Example([{"role": "user", "content": "?"}], row.answer, 1, row.metadata, row.source)
        (failed,) = conversation("verifiers", other, Action("hm"))
        assert isinstance(failed, Failure) and "the harness asks the policy" in failed.problem
