"""Options that a sink must have are told before the start, whether it is given others or none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hybridflow.config import compose
from hybridflow.observe.sinks import MetricSink, SinkContext, metric_sinks
from hybridflow.preflight import sink_checks

CONFIG = compose.compose("train", ["experiment=addition"]).to_config()


class Lines(MetricSink):
    def __init__(self, context: SinkContext, path: str) -> None: ...

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None: ...


@pytest.mark.parametrize("options", [{}, {"lines_for_test": {}}])
def test_an_option_without_a_default_must_be_given(
    options: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_sinks, "_components", {**metric_sinks.registered, "lines_for_test": Lines})
    monkeypatch.setattr(CONFIG.trainer, "metric_sinks", ["jsonl", "lines_for_test"])
    monkeypatch.setattr(CONFIG.trainer, "sink_options", options)
    [line] = sink_checks.problems(CONFIG)
    assert line.startswith("trainer.sink_options.lines_for_test.path: must be given")
    CONFIG.trainer.sink_options["lines_for_test"] = {"path": "here"}
    assert sink_checks.problems(CONFIG) == []
