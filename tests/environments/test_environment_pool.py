"""The processes that environments run in: what they survive, and that one conversation does not wait for another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hybridflow.environments import Action, Observation, Question
from hybridflow.environments.environment_pool import HANGS, EnvironmentOrder, EnvironmentPool, Failure
from hybridflow.errors import HybridFlowError
from hybridflow.tasks import GradedRow
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grading_guard import descendants
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess
from tests.environments import child_environments  # noqa: F401  registers the environments

pytestmark = pytest.mark.processes

SOON_S = 1.0
Said = Observation | Failure


class Talk:
    """Conversations of a pool, each numbered anew."""

    def __init__(self, pool: EnvironmentPool) -> None:
        self.pool, self.number = pool, 0

    def begin(self, prompt: str = "p", **known: int | str) -> int:
        self.number += 1
        self.pool.reset(self.number, Question(prompt, **{"answer": "12", **known}))  # type: ignore[arg-type]
        return self.number

    def answers(self, said: dict[int, str], turn: int = 0) -> dict[int, Said]:
        for number, text in said.items():
            self.pool.step(number, Action(text, turn=turn))
        found: dict[int, Said] = {}
        until = time.monotonic() + 30
        while len(found) < len(said) and time.monotonic() < until:
            found |= dict(self.pool.poll(5.0))
        return found

    def answer(self, text: str, prompt: str = "p") -> Said:
        number = self.begin(prompt)
        found = self.answers({number: text})[number]
        self.pool.finish(number)
        return found


@pytest.fixture(scope="module")
def talk() -> Iterator[Talk]:
    pool = EnvironmentPool(EnvironmentOrder("does", {"turns": 2}, deadline_s=SOON_S))
    yield Talk(pool)
    pool.close()


def test_a_conversation_has_an_environment_of_its_own_that_remembers(talk: Talk) -> None:
    one, other = talk.begin(seed=3), talk.begin(answer="13")
    first = {"role": "user", "content": "12 1"}
    assert talk.answers({one: "hi"}) == {one: Observation([first], 0.5, False, {"asked": 1.0, "seed": 3.0})}
    both = talk.answers({one: "ho", other: "hi"})
    assert both[one] == Observation([], 0.5, True, {"asked": 2.0, "seed": 3.0})
    assert isinstance(both[other], Observation) and both[other].messages == [{"role": "user", "content": "13 1"}]
    talk.pool.finish(one)
    talk.pool.finish(other)


WRONG = [
    ("raises", "RuntimeError: no"),
    ("interrupts", "KeyboardInterrupt"),
    ("gives no observation", "ValueError: step gave 'well done', of type str; an Observation was expected"),
    ("gives no number", "ValueError: nan, which is no finite number in float32"),
    ("says what JSON does not", "TypeError: <tests.environments.child_environments.Does"),
    ("says too much", "ValueError: step gave messages of 4000001 characters; at most 4000000 were expected"),
    ("measures without a name", "ValueError: step gave a metric named 'a\\x1b[2J'; what can be printed was expected"),
    ("counts turns", "ValueError: step gave a metric 'turns', which every run has of its own"),
    ("says nothing", "ValueError: step gave an Observation without messages that is not done"),
    ("speaks as another", "ValueError: step gave a message of the role 'tool'; the environment's roles are user"),
]


@pytest.mark.parametrize(("does", "told"), WRONG)
def test_what_it_gets_wrong_is_a_failure_and_never_a_reward(talk: Talk, does: str, told: str) -> None:
    failure = talk.answer(does)
    assert isinstance(failure, Failure) and failure.kind == "raised"
    assert failure.problem.startswith(told)


def test_one_that_could_not_begin_says_so_at_its_first_step(talk: Talk) -> None:
    failure = talk.answer("hi", prompt="unwilling")
    assert isinstance(failure, Failure) and failure.problem == "RuntimeError: not this one"
    failure = talk.answer("hi", prompt="welcoming")
    assert isinstance(failure, Failure) and failure.problem.startswith("ValueError: reset gave Observation(")


def test_a_late_step_fails_alone_and_no_other_waits_for_it(talk: Talk) -> None:
    late, other = talk.begin(), talk.begin()
    talk.pool.step(late, Action("waits"))
    assert isinstance(talk.answers({other: "hi"})[other], Observation)
    assert talk.pool.poll(5.0) == [(late, Failure("late"))]
    begun = talk.begin()
    assert talk.pool._children[-1].unsent, "it waits for a process that has just been started, and nobody waits for it"
    assert isinstance(talk.answers({other: "ho"}, turn=1)[other], Observation), "it lives on in its process"
    assert isinstance(talk.answers({begun: "hi"})[begun], Observation)
    for number in (late, other, begun):
        talk.pool.finish(number)


def test_one_that_forks_goes_on_once(talk: Talk) -> None:
    assert isinstance(talk.answer("forks"), Observation)
    [child] = talk.pool._children
    until = time.monotonic() + 10
    while _living(child._process.pid) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert _living(child._process.pid) == 1
    assert isinstance(talk.answer("hi"), Observation)


def _living(guard: int) -> int:
    """How many processes it guards; those that have ended it reaps later."""
    states = []
    for pid in descendants(guard):
        with suppress(FileNotFoundError):
            states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return sum(state != "Z" for state in states)


def test_a_slow_plain_function_keeps_nobody_waiting() -> None:
    pool = EnvironmentPool(EnvironmentOrder("does_plainly"))
    talk = Talk(pool)
    slow = {talk.begin(): "takes a while" for _ in range(20)}
    start = time.monotonic()
    assert all(isinstance(one, Observation) for one in talk.answers(slow).values())
    assert time.monotonic() - start < 20 * 0.3 / 2
    later = talk.answer("awaits")
    assert isinstance(later, Observation) and later.messages == [{"role": "user", "content": "later"}]
    pool.close()


@pytest.mark.parametrize(("does", "told"), [("exits", "exit code 3"), ("crashes", "killed by SIGSEGV")])
def test_with_a_process_all_its_conversations_are_lost_and_later_ones_have_another(
    talk: Talk, does: str, told: str
) -> None:
    one, other = talk.begin(), talk.begin()
    assert talk.answers({one: does}) == {one: Failure("lost", told)}
    assert talk.answers({other: "hi"}) == {other: Failure("lost", told)}
    talk.pool.finish(one)
    talk.pool.finish(other)
    assert isinstance(talk.answer("hi"), Observation)


def test_one_that_dies_between_two_calls_costs_no_conversation(talk: Talk) -> None:
    assert isinstance(talk.answer("hi"), Observation)
    [child] = talk.pool._children
    for pid in descendants(child._process.pid):
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while not child.has_died and time.monotonic() < until:
        time.sleep(0.01)
    assert isinstance(talk.answer("hi"), Observation)


def test_a_process_that_lets_nothing_go_on_is_ended(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridflow.environments.environment_pool.GRACE_S", 0.2)
    failure = talk.answer("blocks")
    assert failure == Failure("lost", "one of its environments let no other go on")
    assert isinstance(talk.answer("hi"), Observation)


def test_one_that_takes_no_message_keeps_its_rank_no_longer_than_a_step(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridflow.environments.environment_pool.GRACE_S", 0.1)
    number = talk.begin()
    child = talk.pool._children[-1]
    for pid in descendants(child._process.pid):
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    assert talk.answers({number: "hi" * 10**6}) == {number: Failure("lost", HANGS)}
    assert time.monotonic() - start < 10 * SOON_S
    talk.pool.finish(number)


def test_options_that_it_does_not_take_are_told_before_any_conversation() -> None:
    pool = EnvironmentPool(EnvironmentOrder("does", {"turn": 2}))
    with pytest.raises(
        HybridFlowError, match=r"cannot import environment 'does': .*turn: no such option; did you mean"
    ):
        Talk(pool).begin()
    pool.close()


def test_a_grader_is_the_environment_of_one_turn() -> None:
    """What it gives a response there is what it gives it in the process that grades."""
    options = {"pattern": r"#### (\d+)"}
    responses = ["#### 12", "#### 13", "12", ""]
    process = GradingProcess(GradingOrder([bind("regex", options)], [options]))
    graded = [one and one.grade for one in process.grade(0, [GradedRow(text, "12") for text in responses])]
    process.close()
    pool = EnvironmentPool(EnvironmentOrder("graded", {"grader": "regex", "grader_options": options}))
    talk = Talk(pool)
    said = talk.answers({talk.begin(): text for text in responses})
    pool.close()
    assert [said[number] for number in sorted(said)] == [
        Observation([], one.value, True, one.parts) for one in graded if one
    ]
    assert {one.value for one in graded if one} == {0.0, 1.0}
