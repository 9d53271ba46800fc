"""docs/metrics.md names what is measured, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hybridflow
from hybridflow.errors import ConfigError
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import SinkContext, metric_sinks, open_sinks
from hybridflow.preflight import load
from tests.docs.blocks import write_files
from tests.docs.metric_names import told, untold

SOURCES = [file for file in Path(hybridflow.__file__).parent.rglob("*.py") if "conformance" not in file.parts]
RECORDED = re.compile(r"metrics\.(?:mean|max|min|total|explain)\(\s*f?\"([^\"]+)\"")


def recorded() -> set[str]:
    """Names that the package records, a role in one of them as that of the actor."""
    names = {name for file in SOURCES for name in RECORDED.findall(file.read_text(encoding="utf-8"))}
    return {re.sub(r"\{(self\.context\.)?role\}", "critic", name) for name in names}


def test_what_is_recorded_is_told() -> None:
    """Runs of every algorithm are held to it too, where tests make them; here also what few of them record."""
    names = {name for name in recorded() if "{" not in name}
    assert {"actor/entropy", "critic/grad_norm", "perf/response_tokens"} <= names
    assert untold(names) == []


def test_what_is_told_is_a_name() -> None:
    assert "ROLE/grad_norm" in told() and len(told()) > 80
    assert [name for name in told() if "…" in name or " " in name] == []


def test_a_name_that_is_not_told_is_noticed() -> None:
    names = [
        "actor/kl",
        "actor/kl2",
        "timing_s/weigh",
        "timings/weigh",
        "validation/pass@4",
        "validation/pass@",
        "step",
    ]
    assert untold(names) == ["actor/kl2", "timings/weigh", "validation/pass@"]


def test_its_sink_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files("docs/metrics.md", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    list(metric_sinks)  # ours are all there before one is put among them
    monkeypatch.setattr(metric_sinks, "_components", metric_sinks.registered)
    config = load("train", ["experiment=addition", "plugins=[my_sinks]", "trainer.metric_sinks=[jsonl,csv]"])
    context = SinkContext(config, RunFolder(tmp_path / "run"), Live())
    context.folder.path.mkdir()
    with open_sinks(config.trainer.metric_sinks, context) as sinks:
        sinks.log_validation(0, {"accuracy": 0.5})
        sinks.log_step(0, {"reward/mean": 0.25})
    assert (tmp_path / "run/rewards.csv").read_text() == "0,0.25\n"
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 2


def test_a_sink_that_is_not_there_is_told_before_the_start() -> None:
    with pytest.raises(ConfigError, match=r"trainer.metric_sinks: no metric sink is named 'json'; did you mean"):
        load("train", ["experiment=addition", "trainer.metric_sinks=[json]"])
