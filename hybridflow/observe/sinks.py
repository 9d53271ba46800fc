"""Metric sinks: where the numbers of a run go. `trainer.metric_sinks` names them; the loop knows no more of them.

A sink gets its metrics on a thread of its own, beside the step. One that is `in_step` gets them in the loop, and one
that is `required` too ends the run when it fails: a checkpoint counts on the lines of `metrics.jsonl`. Any other is
told of once, as a warning in the log, and left out from then on: hours of training do not end because a server is away,
nor do they wait for it. One that cannot even be opened ends the run before its first step.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from time import monotonic
from typing import Any, ClassVar

from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.live_view import Live
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_state import FollowedRun, RunState
from hybridflow.observe.sink_thread import SinkThread
from hybridflow.registry import Registry

OPEN_WAIT_S = 60.0  # that a sink may take to open
CLOSING = "as it was closed"
CLOSE_WAIT_S = 60.0  # that sinks may take for what is left, all of them together, when a run ends

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


class MetricSink(ABC):
    """Base of metric sinks: opened before the first metrics come, closed once, however the run ends.

    Parameters of a constructor after `context` are options, which `trainer.sink_options.NAME` gives. All methods are
    called on one thread.

    Example:
        @metric_sinks.register("csv")
        class Csv(MetricSink):
            def __init__(self, context, separator=","):
                super().__init__(context)
                self._separator = separator
                self._file = (context.folder.path / "loss.csv").open("a")

            def log_step(self, step, metrics):
                self._file.write(f"{step}{self._separator}{metrics['actor/loss']}\\n")

            def close(self):
                self._file.close()

    Attributes:
        in_step: it gets its metrics in the loop, which waits for it.
        required: it is `in_step`, and the run ends if it fails.
        package: the module that it imports, and the extra of hybridflow that has it; "": none.
        run_failed: whether an error ended the run; known when it is closed.
    """

    in_step: ClassVar[bool] = False
    required: ClassVar[bool] = False
    package: ClassVar[str] = ""

    def __init__(self, context: SinkContext) -> None:
        self.context = context
        self.run_failed = False

    @abstractmethod
    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step; steps are numbered from 0."""

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a validation before that step. Their names begin with `validation/`."""
        self.log_step(step, metrics)

    def close(self) -> None:
        """Let go of what is open."""
        return

    @classmethod
    def abandon(cls) -> None:
        """Let the process end although a sink of this kind hangs; called on another thread than the sink's."""
        return


metric_sinks: Registry[type[MetricSink]] = Registry("metric sink", "hybridflow.observe.tracker_sinks", of=MetricSink)


def in_step(name: str) -> bool:
    """Tell whether the loop waits for a sink."""
    kind = metric_sinks.get(name)
    return kind.in_step or kind.required


def missing_package(name: str) -> str | None:
    """Tell what to install for a sink, by its registered name; None if nothing is missing."""
    package = metric_sinks.get(name).package
    if not package or find_spec(package) is not None:
        return None
    return f"{name} needs the package {package}, which is not installed: pip install 'hybridflow[{package}]'"


@metric_sinks.register("jsonl")
class JsonlSink(MetricSink):
    """`metrics.jsonl` of the run folder: a line for each step and each validation."""

    in_step = True
    required = True

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.context.folder.log({"step": step, **metrics})


@metric_sinks.register("live")
class LiveSink(MetricSink):
    """Panel on a terminal, elsewhere a line now and then. The trainer says in words how a validation went."""

    in_step = True

    def __init__(self, context: SinkContext) -> None:
        super().__init__(context)
        state = RunState(context.config.run.name, context.config.trainer.steps)
        run = FollowedRun(context.folder.path, state, metrics=False)
        if context.steps_taken:
            run.read_before()
        run.look()
        self._showing = ExitStack()
        self._showing.enter_context(context.live.showing(run))

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.context.live.take_step(step, metrics)

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.context.live.take_validation(step, metrics)

    def close(self) -> None:
        self.context.live.end("stopping" if self.run_failed else "ended")
        self._showing.close()


class OpenSinks:
    """Sinks of a run, by name, fed and closed together."""

    def __init__(self) -> None:
        self._in_step: dict[str, MetricSink] = {}
        self._beside: dict[str, SinkThread[MetricSink]] = {}
        self._failed: dict[str, str] = {}

    def open(self, name: str, context: SinkContext) -> None:
        """Open one more. Raises HybridFlowError naming it if it cannot be opened, or takes too long for it."""
        try:
            kind = metric_sinks.get(name)
            make = partial(kind, context, **_options(context.config, name))
            if in_step(name):
                self._in_step[name] = make()
                return
            thread = SinkThread(name, make, partial(_tell, context.folder, name))
            with terminal.tamed():  # clients of servers tell where their pages are
                thread.open(OPEN_WAIT_S)
            self._beside[name] = thread
        except TimeoutError as error:
            metric_sinks.get(name).abandon()
            raise HybridFlowError(f"trainer.metric_sinks: {name!r} cannot be opened: {error}; leave it out") from error
        except (HybridFlowError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise HybridFlowError(
                f"trainer.metric_sinks: {name!r} cannot be opened: {error!r}; mend that, or leave it out"
            ) from error

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give every sink the metrics of a step. Raises what a required one raises."""
        copied = dict(metrics)  # threads read it later, each its own: what one does to it is no other's affair
        self._give(lambda sink: sink.log_step(step, dict(copied)), f"at step {step}")

    def log_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give every sink the metrics of a validation, with `validation/` before their names. Raises as `log_step`."""
        named = {f"validation/{name}": value for name, value in metrics.items()}
        self._give(lambda sink: sink.log_validation(step, dict(named)), f"at the validation of step {step}")

    def close(self, *, run_failed: bool = False) -> None:
        """Close those that are open, and tell again which failed: the first time may be hours up the log.

        What is not done after `CLOSE_WAIT_S` is told of, and not waited for.
        """
        act = partial(_close, run_failed=run_failed)
        for thread in self._beside.values():
            thread.end(act, CLOSING)
        with ExitStack() as closing:  # all of them, also if one raises
            closing.callback(self._wait)
            for name, sink in list(self._in_step.items()):
                closing.callback(self._act, name, partial(act, sink), CLOSING)

    def _wait(self) -> None:
        until = monotonic() + CLOSE_WAIT_S
        with terminal.tamed():
            for name, thread in self._beside.items():
                if not thread.wait(until):
                    metric_sinks.get(name).abandon()
        failed = self._failed | {name: thread.failed for name, thread in self._beside.items()}
        for name, when in failed.items():
            if when not in ("", CLOSING):
                log.warning("metric sink %r failed %s: what came after that is not in it", name, when)

    def _give(self, act: Callable[[MetricSink], None], when: str) -> None:
        for thread in self._beside.values():
            thread.give(act, when)
        for name, sink in list(self._in_step.items()):
            self._act(name, partial(act, sink), when)

    def _act(self, name: str, act: Callable[[], None], when: str) -> None:
        try:
            act()
        except (Exception, SystemExit) as error:  # as on a thread of its own
            sink = self._in_step[name]
            if sink.required:
                raise
            del self._in_step[name]
            self._failed[name] = when
            _tell(sink.context.folder, name, f"failed {when}, and is left out from now on: {error!r}")


def _tell(folder: RunFolder, name: str, what: str) -> None:
    """Tell what went wrong with a sink, which may be by its own thread."""
    log.warning("metric sink %r %s", name, what)
    with suppress(HybridFlowError, OSError):  # a full disk: the run ends by its own files
        folder.event("sink", name=name, told=what)


def _close(sink: MetricSink, *, run_failed: bool) -> None:
    sink.run_failed = run_failed
    sink.close()


def _options(config: Config, name: str) -> dict[str, Any]:
    return {str(key): value for key, value in config.trainer.sink_options.get(name, {}).items()}


@contextmanager
def open_sinks(names: Sequence[str], context: SinkContext) -> Iterator[OpenSinks]:
    """Open these sinks, and close them at the end, however it comes. Raises as `OpenSinks.open`."""
    sinks = OpenSinks()
    try:
        for name in sorted(dict.fromkeys(names), key=in_step):  # a bar moves only once all clients have had their say
            sinks.open(name, context)
        yield sinks
    except BaseException:
        sinks.close(run_failed=True)
        raise
    sinks.close()
