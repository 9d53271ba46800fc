"""Metric sinks, tried in a folder of their own: opened, given a validation and two steps, closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hybridflow.config import compose
from hybridflow.conformance.expectations import ExpectationError, describe_error, expect, expect_defaults
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import MetricSink, SinkContext

STEPS = 2
STEP = {
    "actor/loss": 0.1, "actor/kl": 0.002, "actor/entropy": 1.5, "actor/clip_fraction": 0.1, "actor/grad_norm": 0.7,
    "actor/lr": 1e-4, "actor/updates": 1.0, "actor/skipped_steps": 0.0, "actor/memory_peak_gib": 0.5,
    "critic/value_loss": 0.3, "critic/grad_norm": 2.0, "critic/vf_explained_var": float("nan"),
    "reward/mean": 0.25, "reward/std": 0.4, "reward/min": 0.0, "reward/max": 1.0, "reward/failed_share": 0.0,
    "response_length/mean": 5.5, "response_length/max": 8.0, "rollout/rows": 64.0, "rollout/kept_rows": 64.0,
    "perf/tokens_per_s": 900.0, "timing_s/step": 1.25, "timing_s/generate_sequences": 0.5,
}  # fmt: skip
"""Metrics such as a step has. One that could not be measured is NaN, as an explained variance of nothing."""
VALIDATION = {"validation/accuracy": 0.5, "validation/prompts": 64.0}


def try_sink(kind: Callable[..., Any]) -> None:
    """Expect a sink to take a run's metrics without an exception, in the order in which a run calls it."""
    expect_defaults(kind)
    package = getattr(kind, "package", "")
    expect(not package or find_spec(package) is not None, f"it needs the package {package}, which is not installed")
    with TemporaryDirectory() as place, chdir(place):
        settings = ["experiment=addition", "actor.model.path=model", f"run.root={place}", "run.name=check"]
        config = compose.compose("train", [*settings, f"trainer.steps={STEPS}"]).to_config()
        folder = RunFolder(Path(place) / "check")
        folder.path.mkdir()
        made: list[MetricSink] = []
        _try("when it is opened", lambda: made.append(kind(SinkContext(config, folder, Live()))))
        (sink,) = made
        try:
            _try("at a validation", lambda: sink.log_validation(0, dict(VALIDATION)))
            for step in range(STEPS):
                _try(f"at step {step}", lambda step=step: sink.log_step(step, dict(STEP)))  # type: ignore[misc]
        except ExpectationError:
            with suppress(Exception, SystemExit):  # what failed first is told
                sink.close()
            raise
        _try("when it is closed", sink.close)


def _try(when: str, act: Callable[[], object]) -> None:
    """Raise ExpectationError that says when a sink failed."""
    try:
        act()
    except (Exception, SystemExit) as error:
        raise ExpectationError(f"it fails {when}: {describe_error(error)}") from error
