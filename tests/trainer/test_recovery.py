"""What a run does after a failure, with pools that only count their restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridflow import interrupt, preflight
from hybridflow.algorithms import algorithms
from hybridflow.controller.health import Health
from hybridflow.observe.run_folder import RunFolder
from hybridflow.placement import resolve
from hybridflow.runtime.failure import Failure, FailureKind, RoleError
from hybridflow.trainer import checkpoint, loop
from hybridflow.trainer.checkpoint_store import Checkpoints
from hybridflow.trainer.goodput import Spent, WallClock
from hybridflow.trainer.loop import Outputs
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.recovery import Recovery

SETTINGS = (
    "experiment=addition", "placement=rollout_pool", "algorithm=grpo", "trainer.max_failures=2", "run.name=recovered",
)  # fmt: skip


class Pool:
    """A pool that counts its restarts; it may refuse the first of them."""

    def __init__(self) -> None:
        self.restarts = 0
        self.refuses: RoleError | None = None

    def restart(self) -> None:
        self.restarts += 1
        if self.refuses is not None and self.restarts == 1:
            raise self.refuses


class Supervisor:
    """What was called, and which pools do not come to rest."""

    def __init__(self) -> None:
        self.health = Health()
        self.called: set[tuple[str, str]] = set()
        self.restless: list[Pool] = []
        self.resumed = 0

    def forget_calls(self) -> None:
        self.called.clear()

    def quiesce(self, suspect: Pool, within_s: float, *, sure: bool) -> list[Pool]:
        return [*([suspect] if sure or not self.restless else []), *self.restless]

    def resume(self) -> None:
        self.resumed += 1


class Algorithm:
    """State that counts steps."""

    def __init__(self) -> None:
        self.count = 0

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Run:
    """A run of two pools whose first step is taken, and in whose second something fails."""

    def __init__(self, folder: Path) -> None:
        config = preflight.load("train", SETTINGS)
        placement = resolve(config, algorithms.get("grpo").roles_of(config.algorithm))
        groups = {role.name: SimpleNamespace(interface=role.interface) for role in placement.roles}
        self.pools = {pool.name: Pool() for pool in placement.pools}
        self.supervisor = Supervisor()
        self.algorithm = Algorithm()
        self.meetings = 0
        running: Any = SimpleNamespace(
            groups=groups, pools=self.pools, placement=placement, supervisor=self.supervisor, algorithm=self.algorithm,
            let_pools_meet=self._meet, processes=lambda: {"rollout": [("here", 7)]},
        )  # fmt: skip
        self.folder = RunFolder(folder)
        self.progress = Progress()
        self.said: list[str] = []
        self.clock = WallClock()
        self.journaled: list[int] = []
        journal: Any = SimpleNamespace(begin=lambda: self.journaled.append(self.meetings))
        self.recovery = Recovery(
            config, running, self.folder, self.progress, None, self.said.append, self.clock, journal
        )
        self.failures: list[Callable[[], RoleError]] = []
        self.seen: list[tuple[int, int, int]] = []

    def _meet(self) -> None:
        self.meetings += 1

    def take_steps(self) -> None:
        """Two steps; in the second the failures that are left happen, one each time that it is made."""
        while self.progress.steps < 2:
            self.clock.enter(Spent.steps)
            self.seen.append((self.progress.steps, self.progress.draws, self.algorithm.count))
            self.progress.draws += 1
            self.algorithm.count += 1
            self.folder.log({"step": self.progress.steps})
            self.supervisor.called.add(("actor", "generate_sequences"))
            if self.progress.steps == 1 and self.failures:
                raise self.failures.pop(0)()
            self.clock.enter(Spent.other)
            self.progress.steps += 1
            self.recovery.mark()

    def restarts(self) -> dict[str, int]:
        return {name: pool.restarts for name, pool in self.pools.items()}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder.path / "events.jsonl").read_text().splitlines()]


def failure(role: str, kind: FailureKind = FailureKind.INFRA, **more: Any) -> RoleError:
    return RoleError(Failure(role, 0, "here", "work", "it died", "", 1, kind=kind, **more), [])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run")


def test_a_lost_pool_costs_its_step_only(run: Run) -> None:
    run.failures = [lambda: failure("rollout")]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 0, "rollout": 1} and run.meetings == 1
    assert run.journaled == [1], "new processes are told what is in the journal"
    assert run.seen == [(0, 0, 0), (1, 1, 1), (1, 1, 1)], "the step is made again as it was"
    assert [line["step"] for line in run.folder.metric_lines()] == [0, 1], "what it had written is gone"
    events = run.events()
    assert [event["event"] for event in events] == ["failure", "recovery"]
    assert (
        run.progress.spent is run.clock.seconds and run.clock.seconds["lost_work"] + run.clock.seconds["detection"] > 0
    )
    assert events[1]["seconds"] >= events[1]["start_s"] >= 0 <= events[1]["settle_s"]
    assert events[1]["processes"] == {"rollout": [["here", 7]]}
    assert events[0]["kind"] == "infra" and events[0]["goes_on"] and events[1]["pools"] == ["rollout"]
    assert run.said[0].startswith(
        "failure 1 of 2 that it goes on after: rollout.work failed on rank 0 (here) in step 1"
    )
    assert run.said[1] == "new processes for pool rollout; step 1 is made again, and nothing is loaded"


def test_without_a_checkpoint_a_lost_learner_begins_again(run: Run) -> None:
    run.failures = [lambda: failure("actor")]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 1, "rollout": 0}
    assert run.seen == [(0, 0, 0), (1, 1, 1), (0, 0, 0), (1, 1, 1)]
    assert run.said[1].endswith("back to step 0, for no checkpoint is kept (trainer.save_every)")


def test_a_learner_that_may_have_changed_goes_back_too(run: Run) -> None:
    def after_an_update() -> RoleError:
        run.supervisor.called.add(("actor", "update_actor"))
        return failure("rollout")

    run.failures = [after_an_update]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 1, "rollout": 1} and run.seen[2] == (0, 0, 0)


def test_a_broken_link_is_blamed_on_the_pool_that_is_lost(run: Run) -> None:
    """Or, if none is, on that of the rank that complained."""
    run.supervisor.restless = [run.pools["rollout"]]
    run.failures = [lambda: failure("actor", of_link=True)]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 0, "rollout": 1}
    run.supervisor.restless = []
    run.progress.steps = 1
    run.recovery.mark()
    run.failures = [lambda: failure("actor", of_link=True)]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 1, "rollout": 1}


def test_a_pool_that_cannot_be_rebuilt_takes_all_with_it(run: Run) -> None:
    run.pools["rollout"].refuses = failure("placement.pools.rollout")
    run.failures = [lambda: failure("rollout")]
    run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 1, "rollout": 2}
    assert run.seen[-2:] == [(0, 0, 0), (1, 1, 1)], "its learners are new, and there is no checkpoint"
    assert run.supervisor.resumed == 2


@pytest.mark.parametrize("kind", [FailureKind.BUG, FailureKind.DATA])
def test_what_would_fail_again_is_raised(run: Run, kind: FailureKind) -> None:
    run.failures = [lambda: failure("actor", kind)]
    with pytest.raises(RoleError, match="it died"):
        run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 0, "rollout": 0} and run.said == []
    assert run.events()[0]["goes_on"] is False


def test_one_failure_too_many_ends_it(run: Run) -> None:
    run.failures = [lambda: failure("rollout")] * 3
    with pytest.raises(RoleError, match="it died"):
        run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 0, "rollout": 2}
    assert run.said[-1] == "3 failures in 3600 s: trainer.max_failures = 2 allows no more"


def test_what_would_fail_again_is_not_said_to_be_one_failure_too_many(run: Run) -> None:
    run.failures = [lambda: failure("rollout"), lambda: failure("rollout"), lambda: failure("actor", FailureKind.BUG)]
    with pytest.raises(RoleError, match="it died"):
        run.recovery.go_on(run.take_steps)
    assert run.restarts() == {"train": 0, "rollout": 2} and not run.events()[-1]["goes_on"]
    assert not any("trainer.max_failures" in line for line in run.said)


def test_what_comes_after_a_step_is_made_again_without_the_step(run: Run) -> None:
    run.take_steps()
    run.recovery.mark(validates=True)
    seen: list[tuple[bool, int]] = []

    def validate() -> None:
        seen.append((run.recovery.validates, run.progress.steps))
        if len(seen) == 1:
            run.progress.accuracy[2] = 0.5
            raise failure("rollout")

    run.recovery.go_on(validate)
    assert seen == [(True, 2), (True, 2)] and run.progress.accuracy == {}


def test_a_rank_that_is_lost_once_a_step_is_saved_does_not_make_it_save_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a rank dies while the journal of a durable run is cleared: the checkpoint has its name by then."""
    config = preflight.load("train", (*SETTINGS, "trainer.save_every=1", "trainer.validate_every=0"))
    store = Checkpoints(run.folder.checkpoints)
    cleared: list[int] = []

    def save(*_: Any) -> None:
        (store.begin(2) / "trainer.json").write_text("{}")
        store.commit(2, {})

    def clear() -> None:
        cleared.append(run.progress.steps)
        raise failure("rollout")

    monkeypatch.setattr(checkpoint, "save", save)
    journal: Any = SimpleNamespace(clear=clear)
    sinks: Any = None
    outputs = Outputs(run.folder, sinks, run.said.append, run.clock, journal)
    run.take_steps()
    run.recovery.mark(validates=True)

    def end_steps() -> None:
        while run.recovery.validates:
            running: Any = None
            loop.end_step(config, running, [], outputs, run.progress, run.recovery)

    run.recovery.go_on(end_steps)
    assert store.steps() == [2] and cleared == [2] and run.progress.steps == 2
    assert run.restarts() == {"train": 0, "rollout": 1} and run.journaled == [1], "rows that are left there are known"


def test_a_signal_has_a_step_saved_before_its_validation_which_the_next_run_makes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation may take longer than the signal leaves; the step that it follows is whole."""
    store = Checkpoints(run.folder.checkpoints)
    made: list[str] = []

    def save(*_: Any) -> None:
        made.append("save")
        store.begin(2)
        store.commit(2, {})

    def validate(*_: Any) -> None:
        made.append("validation")
        run.progress.accuracy[2] = 0.5

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(loop, "_validate", validate)
    for name in ("Prompts", "MemoryWatch", "StoreWatch"):
        monkeypatch.setattr(loop, name, lambda *_: SimpleNamespace(shares=list, rows_per_step=1, size=1))
    monkeypatch.setattr(loop, "split_of", lambda _: "train")
    monkeypatch.setattr(run.algorithm, "learner", "actor", raising=False)
    running = run.recovery._running
    running.groups["actor"].save_model = lambda _: SimpleNamespace(get=lambda: made.append("model"))
    config = preflight.load("train", (*SETTINGS, "trainer.save_every=1", "trainer.steps=2"))
    nothing: Any = None
    outputs = Outputs(run.folder, nothing, run.said.append, run.clock)
    run.progress.accuracy[0] = 0.25
    run.take_steps()
    with monkeypatch.context() as signal, pytest.raises(KeyboardInterrupt):
        signal.setattr(interrupt, "asked", lambda: True)
        signal.setattr(interrupt, "stop", raise_interrupt)
        loop.end_step(config, running, [], outputs, run.progress, run.recovery)
    assert made == ["save"]
    run.recovery.mark()  # as of a run that begins
    loop.train(config, running, nothing, outputs, run.progress, run.recovery)
    assert made == ["save", "validation", "model"]


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_the_seconds_of_a_run_have_its_recoveries_in_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    running = run.recovery._running

    def restart() -> None:
        nonlocal now
        now += 20.0

    def save_model(_: str) -> Any:
        nonlocal now
        now += 3.0
        if now < 60.0:
            raise failure("rollout")
        return SimpleNamespace(get=lambda: None)

    made: list[Callable[[str], None]] = []
    monkeypatch.setattr(loop, "MemoryWatch", made.append)
    monkeypatch.setattr(loop, "perf_counter", lambda: now)
    prompts = SimpleNamespace(shares=list, rows_per_step=1, size=1)
    monkeypatch.setattr(loop, "Prompts", lambda *_: prompts)
    monkeypatch.setattr(loop, "split_of", lambda _: "train")
    monkeypatch.setattr(run.pools["rollout"], "restart", restart)
    monkeypatch.setattr(run.algorithm, "learner", "actor", raising=False)
    running.groups["actor"].save_model = save_model
    config = preflight.load("train", (*SETTINGS, "trainer.steps=0"))
    nothing: Any = None
    run.progress.accuracy[0] = 0.5
    run.progress.seconds = 100.0
    run.recovery.mark()
    outputs = Outputs(run.folder, nothing, run.said.append, run.clock)
    loop.train(config, running, nothing, outputs, run.progress, run.recovery)
    assert run.progress.seconds == 100.0 + 3.0 + 20.0
    assert len(made) == 1, "what it has warned of before a failure it does not warn of again"
