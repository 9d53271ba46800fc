"""Metric sinks: where the numbers of a run go. `trainer.metric_sinks` names them; the loop knows no more of them.

A sink that is `required` ends the run when it fails: a checkpoint counts on the lines of `metrics.jsonl`. Any other is
told of once, as a warning in the log, and left out from then on: hours of training do not end because a server is away.
One that cannot even be opened ends the run before its first step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import ClassVar

from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SinkContext:
    """Facts of a run for its sinks.

    Attributes:
        steps_taken: before it was opened, if the run goes on from a checkpoint.
    """

    config: Config
    folder: RunFolder
    live: Live
    steps_taken: int = 0


class MetricSink:
    """Base of metric sinks: opened before the first metrics come, closed once, however the run ends.

    Example:
        @metric_sinks.register("csv")
        class Csv(MetricSink):
            def __init__(self, context):
                super().__init__(context)
                self._file = (context.folder.path / "loss.csv").open("a")

            def log_step(self, step, metrics):
                self._file.write(f"{step},{metrics['actor/loss']}\\n")

            def close(self):
                self._file.close()
    """

    required: ClassVar[bool] = False

    def __init__(self, context: SinkContext) -> None:
        self.context = context

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step; steps are numbered from 0."""
        raise NotImplementedError

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a validation before that step. Their names begin with `validation/`."""
        self.log_step(step, metrics)

    def close(self) -> None:
        """Let go of what is open."""


metric_sinks: Registry[type[MetricSink]] = Registry("metric sink", of=MetricSink)


@metric_sinks.register("jsonl")
class JsonlSink(MetricSink):
    """`metrics.jsonl` of the run folder: a line for each step and each validation."""

    required = True

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.context.folder.log({"step": step, **metrics})


@metric_sinks.register("live")
class LiveSink(MetricSink):
    """Bar on a terminal, elsewhere a line now and then. The trainer says in words how a validation went."""

    def __init__(self, context: SinkContext) -> None:
        super().__init__(context)
        self._steps = context.config.trainer.steps
        self._begin = monotonic()
        self._bar = ExitStack()
        self._bar.enter_context(context.live.bar(context.config.run.name, self._steps, done=context.steps_taken))

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        done = step + 1
        a_step_s = (monotonic() - self._begin) / (done - self.context.steps_taken)
        self.context.live.step(done, self._steps, metrics, a_step_s * (self._steps - done))

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        self._bar.close()


class OpenSinks:
    """Sinks of a run, by name, fed and closed together."""

    def __init__(self) -> None:
        self._sinks: dict[str, MetricSink] = {}
        self._failed: dict[str, str] = {}

    def open(self, name: str, context: SinkContext) -> None:
        """Open one more. Raises HybridFlowError naming it if it cannot be opened."""
        try:
            self._sinks[name] = metric_sinks.get(name)(context)
        except HybridFlowError:
            raise
        except Exception as error:
            raise HybridFlowError(
                f"trainer.metric_sinks: {name!r} cannot be opened: {error!r}; mend that, or leave it out"
            ) from error

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give every sink the metrics of a step. Raises what a required one raises."""
        for name, sink in list(self._sinks.items()):
            self._act(name, partial(sink.log_step, step, metrics), f"at step {step}")

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give every sink the metrics of a validation, with `validation/` before their names. Raises as `log_step`."""
        named = {f"validation/{name}": value for name, value in metrics.items()}
        for name, sink in list(self._sinks.items()):
            self._act(name, partial(sink.log_validation, step, named), f"at the validation of step {step}")

    def close(self) -> None:
        """Close those that are open, and tell again which failed: the first time may be hours up the log."""
        for name, when in self._failed.items():
            log.warning("metric sink %r failed %s: what came after that is not in it", name, when)
        with ExitStack() as closing:  # all of them, also if one raises
            for name, sink in list(self._sinks.items()):
                closing.callback(self._act, name, sink.close, "as it was closed")

    def _act(self, name: str, act: Callable[[], None], when: str) -> None:
        try:
            act()
        except Exception as error:
            if self._sinks[name].required:
                raise
            del self._sinks[name]
            self._failed[name] = when
            log.warning("metric sink %r failed %s, and is left out from now on: %r", name, when, error)


@contextmanager
def open_sinks(names: Sequence[str], context: SinkContext) -> Iterator[OpenSinks]:
    """Open these sinks, and close them at the end, however it comes. Raises as `OpenSinks.open`."""
    sinks = OpenSinks()
    try:
        for name in dict.fromkeys(names):
            sinks.open(name, context)
        yield sinks
    finally:
        sinks.close()
