"""Metric sinks: each gets every number; what becomes of the others when one fails."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import MetricSink, SinkContext, metric_sinks, open_sinks

METRICS = {"reward/mean": 0.5, "perf/tokens_per_s": 10.0}


class Kept(MetricSink):
    """Keeps what it is given; fails at one step if told to."""

    opened: list[Kept] = []  # noqa: RUF012
    fails_at: int | None = None

    def __init__(self, context: SinkContext) -> None:
        super().__init__(context)
        self.given: list[tuple[int, Mapping[str, float]]] = []
        self.closed = 0
        Kept.opened.append(self)

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise OSError("the server is away")
        self.given.append((step, metrics))

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    fails_at = 1


class Needed(Failing):
    required = True


class Emptying(MetricSink):
    in_step = True

    def log_step(self, step: int, metrics: dict[str, float]) -> None:  # type: ignore[override]
        metrics.clear()


class Unopened(Kept):
    def __init__(self, context: SinkContext) -> None:
        raise ConnectionError("no network")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SinkContext:
    list(metric_sinks)  # ours are all there before any is put among them
    parts = {
        **metric_sinks.registered,
        "kept": Kept,
        "failing": Failing,
        "needed": Needed,
        "unopened": Unopened,
        "emptying": Emptying,
    }
    monkeypatch.setattr(metric_sinks, "_components", parts)
    monkeypatch.setattr(Kept, "opened", [])
    config = Config()
    config.run.name = "tried"
    config.trainer.steps = 3
    return SinkContext(config, RunFolder(tmp_path), Live(every_step=True), steps_taken=0)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_sink_gets_steps_and_validations(
    context: SinkContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_sinks(["jsonl", "live", "kept", "kept"], context) as sinks:
        sinks.log_validation(0, {"accuracy": 0.25})
        sinks.log_step(0, METRICS)
    wanted = [(0, {"validation/accuracy": 0.25}), (0, METRICS)]
    assert lines(tmp_path) == [{"step": step, **metrics} for step, metrics in wanted]
    (kept,) = Kept.opened
    assert kept.given == wanted and kept.closed == 1
    assert capsys.readouterr().out == "step 0 (1/3 done) · reward 0.500 · 10 tokens/s\n"


def after(seconds: float) -> dict[str, float]:
    """Metrics of a step of 1 s, when the run has gone on for so long beside its start."""
    return METRICS | {"timing_s/step": 1.0, "timing_s/run/start": 50.0, "timing_s/run/steps": seconds}


def test_the_time_that_is_left_counts_from_where_the_run_went_back_to(
    context: SinkContext, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_sinks(["live"], context) as opened:
        for step, seconds in ((0, 1.0), (1, 4.0), (0, 60.0), (1, 61.0)):
            opened.log_step(step, after(seconds))
    left = [line.rpartition("·")[2] for line in capsys.readouterr().out.splitlines()]
    assert left == [" 2 s left", " 3 s left", " 2 s left", " 1 s left"]


def test_a_sink_that_fails_is_told_of_and_left_out(context: SinkContext, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), open_sinks(["failing", "kept"], context) as sinks:
        for step in range(3):
            sinks.log_step(step, METRICS)
    failing, kept = Kept.opened
    assert [step for step, _ in failing.given] == [0] and [step for step, _ in kept.given] == [0, 1, 2]
    assert caplog.messages == [
        "metric sink 'failing' failed at step 1, and is left out from now on: OSError('the server is away')",
        "metric sink 'failing' failed at step 1: what came after that is not in it",
    ]


def test_one_that_is_required_ends_the_run_and_all_are_closed(context: SinkContext) -> None:
    with pytest.raises(OSError, match="the server is away"), open_sinks(["needed", "kept"], context) as sinks:
        for step in range(3):
            sinks.log_step(step, METRICS)
    assert [sink.closed for sink in Kept.opened] == [1, 1]


def test_the_file_of_metrics_is_required(context: SinkContext, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()  # what cannot be written to
    with pytest.raises(HybridFlowError, match=r"metrics\.jsonl"), open_sinks(["jsonl"], context) as sinks:
        sinks.log_step(0, METRICS)


def test_one_that_cannot_be_opened_ends_the_run_at_once(context: SinkContext) -> None:
    with (
        pytest.raises(HybridFlowError, match=r"trainer\.metric_sinks: 'unopened' cannot be opened: .*no network"),
        open_sinks(["kept", "unopened"], context),
    ):
        raise AssertionError("not reached")
    assert [sink.closed for sink in Kept.opened] == [1]


def test_what_is_left_is_told_from_where_the_run_goes_on(
    context: SinkContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of before count, which took longer; and what was there of the run is shown."""
    context.folder.log({"step": 0, **after(10.0)})
    context.folder.log({"step": 1, **after(20.0)})
    begun = SinkContext(context.config, context.folder, context.live, steps_taken=2)
    with open_sinks(["live"], begun) as sinks:
        sinks.log_step(2, after(30.0))
    assert capsys.readouterr().out == "step 2 (3/3 done) · reward 0.500 · 10 tokens/s · 0 s left\n"


class Hanging(MetricSink):
    """Waits in its first step until it is let go, as a client does whose server is away."""

    let_go = threading.Event()
    abandoned = 0
    run_failed_seen: list[bool] = []  # noqa: RUF012

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.let_go.wait()

    def close(self) -> None:
        self.run_failed_seen.append(self.run_failed)

    @classmethod
    def abandon(cls) -> None:
        cls.abandoned += 1


@pytest.fixture
def hanging(context: SinkContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(metric_sinks, "_components", {**metric_sinks.registered, "hanging": Hanging})
    monkeypatch.setattr(Hanging, "let_go", threading.Event())
    monkeypatch.setattr(Hanging, "run_failed_seen", [])
    monkeypatch.setattr(Hanging, "abandoned", 0)
    yield
    Hanging.let_go.set()


def test_one_that_hangs_holds_neither_a_step_nor_the_end(
    context: SinkContext, hanging: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridflow.observe.sinks.CLOSE_WAIT_S", 0.05)
    monkeypatch.setattr("hybridflow.observe.sink_thread.MAX_WAITING", 3)
    monkeypatch.setattr("hybridflow.observe.sink_thread.SILENT_S", 0.01)
    with caplog.at_level(logging.WARNING), open_sinks(["hanging", "kept"], context) as sinks:
        for step in range(20):
            sinks.log_step(step, METRICS)
            threading.Event().wait(0.001)  # the other sink keeps up
    assert [step for step, _ in Kept.opened[0].given] == list(range(20)) and Kept.opened[0].closed == 1
    assert Hanging.abandoned == 1
    told = [line for line in caplog.messages if "'hanging'" in line]
    assert len(told) == 3
    full, silent, end = (
        next(line for line in told if words in line) for words in ("takes no more", "has not taken", "was not done")
    )
    assert silent.endswith("has not taken a line for 0.01 s, and the run goes on without it; lines wait for it")
    assert re.fullmatch(r"metric sink 'hanging' takes no more at step [345], with 3 lines waiting: .* meanwhile", full)
    assert re.search(
        r"'hanging' was not done when the run ended, and was not waited for .*: (19|20|21) lines wait", end
    )


def test_what_is_left_at_the_end_is_waited_for(context: SinkContext, hanging: None) -> None:
    with pytest.raises(ZeroDivisionError), open_sinks(["hanging"], context) as sinks:
        sinks.log_step(0, METRICS)
        Hanging.let_go.set()
        raise ZeroDivisionError
    assert Hanging.run_failed_seen == [True] and Hanging.abandoned == 0


def test_one_that_takes_too_long_to_open_ends_the_run(context: SinkContext, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr("hybridflow.observe.sinks.OPEN_WAIT_S", 0.01)
    monkeypatch.setattr(Kept, "__init__", lambda sink, context: gate.wait())
    with pytest.raises(HybridFlowError, match=r"'kept' cannot be opened: .*it did not open within 0\.01 s"):
        open_sinks(["kept"], context).__enter__()
    gate.set()


def test_metrics_are_those_of_the_moment(context: SinkContext) -> None:
    metrics = dict(METRICS)
    with open_sinks(["kept"], context) as sinks:
        sinks.log_step(0, metrics)
        metrics.clear()
    assert Kept.opened[0].given == [(0, METRICS)]


def test_what_a_sink_does_to_its_metrics_is_no_other_s_affair(context: SinkContext) -> None:
    with open_sinks(["emptying", "jsonl", "kept"], context) as sinks:
        sinks.log_step(0, METRICS)
        sinks.log_validation(1, {"accuracy": 0.25})
    assert Kept.opened[0].given == [(0, METRICS), (1, {"validation/accuracy": 0.25})]
    assert len(lines(context.folder.path)[0]) == 1 + len(METRICS)


def test_one_that_ends_the_process_in_the_loop_ends_no_run(
    context: SinkContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaving(Kept):
        in_step = True

        def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
            raise SystemExit(0)

    monkeypatch.setitem(metric_sinks._components, "leaving", Leaving)
    with caplog.at_level(logging.WARNING), open_sinks(["leaving"], context) as sinks:
        sinks.log_step(0, METRICS)
    assert caplog.messages[0] == ("metric sink 'leaving' failed at step 0, and is left out from now on: SystemExit(0)")
