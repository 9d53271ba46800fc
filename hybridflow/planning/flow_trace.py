"""The flow of a step, traced: the algorithm's own code is run once, on roles that do nothing but note their calls.

So a user's own algorithm is known too. What its calls give are references without rows behind them: their number is
known, and of which call each column is. Values are asked for by few flows, as filters; they get expectations, which are
noted. A flow that needs more than that cannot be traced, and it is said why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from hybridflow.algorithms import Algorithm, StepContext
from hybridflow.batch import BatchRef
from hybridflow.batch.batch import Batch
from hybridflow.batch.row_source import Metadata, rows_stay_here
from hybridflow.bounded_code import at_most, kept_alive
from hybridflow.config.schema import Config
from hybridflow.errors import Stopped, line_and_trace
from hybridflow.observe.terminal import tamed
from hybridflow.planning.run_spec import FlowCall
from hybridflow.planning.traced_roles import FlowError, Notebook, TracedRole
from hybridflow.roles import Role
from hybridflow.workers.worker import scores_its_own_way

TRACE_S = 10.0  # that tracing may take; it takes milliseconds
PROMPT_COLUMNS = ("prompt_ids", "answer", "messages", "metadata", "source", "sample_id")
TAUGHT_COLUMNS = ("response_ids", "rejected_ids", "loss_mask", "rejected_loss_mask")


@dataclass(frozen=True)
class TracedFlow:
    """Calls of a step, and what was expected for them to be known."""

    calls: tuple[FlowCall, ...]
    notes: tuple[str, ...]


@dataclass
class Draws:
    """Prompts of a step, as many times as its flow asks for them."""

    rows: int
    columns: tuple[str, ...]
    lengths: int

    def __call__(self) -> BatchRef:
        made = BatchRef.from_chunk(PromptChunk(self.rows, self.columns, self.lengths), self.rows, self.columns)
        return made.placed(np.arange(self.rows))


@dataclass(frozen=True, eq=False)
class PromptChunk:
    """Stands for rows of the task, which are not read."""

    rows: int
    columns: tuple[str, ...]
    length: int

    @property
    def kinds(self) -> dict[str, str]:
        """Return the kinds of columns that a task's rows have."""
        return {name: "ragged int" if name.endswith(("_ids", "_mask")) else "object" for name in self.columns}

    def metadata(self) -> Metadata:
        lengths = np.full(self.rows, self.length, dtype=np.int64)
        ragged = {name: lengths for name, kind in self.kinds.items() if kind.startswith("ragged")}
        return Metadata(self.rows, self.kinds, ragged)

    def get(self) -> Batch:
        raise FlowError("it reads the rows of the task, which are not there before a run")


def trace_flow(
    config: Config,
    algorithm: type[Algorithm],
    interfaces: Mapping[str, type[Role]],
    models: Sequence[str],
    *,
    kept_share: float = 1.0,
    prompt_tokens: int = 1,
    response_tokens: int = 1,
) -> TracedFlow:
    """Trace a step in the middle of a run.

    Args:
        interfaces: by role that it calls, its methods.
        models: roles that have a model.
        kept_share: of the groups, those that a filter of equal rewards keeps.

    Raises FlowError, in a line, for a flow that cannot be traced.
    """
    book = Notebook(kept_share, response_tokens)
    groups = {name: TracedRole(name, kind, name in models, config, book) for name, kind in interfaces.items()}
    taught = TAUGHT_COLUMNS if algorithm.preferences else ("response_ids",) if algorithm.supervised else ()
    draws = Draws(config.algorithm.prompts_per_step, (*PROMPT_COLUMNS, *taught), prompt_tokens)
    try:
        step = max(config.trainer.steps // 2, config.algorithm.critic_warmup_steps)
        # What it prints is none of a plan, which may be JSON on standard output.
        with redirect_stdout(sys.stderr), tamed(), at_most(TRACE_S), kept_alive(), rows_stay_here():
            flow = algorithm(config.algorithm, groups)
            flow.scores_first = scores_its_own_way(config.actor.worker)
            flow.begin_step(StepContext(step, draws, steps_left=config.trainer.steps))
            if algorithm.step is Algorithm.step:
                rollout = flow.rollout(draws())
                book.samples = False
                flow.learn(rollout)
            else:
                flow.step(draws())
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException as error:  # of a user's code, whatever it is
        _refuse(algorithm, error)
    return TracedFlow(tuple(book.calls), tuple(book.notes))


def _refuse(algorithm: type[Algorithm], error: BaseException) -> NoReturn:
    line, _ = line_and_trace(error, _line)
    raise FlowError(f"the flow of {algorithm.__name__} cannot be traced without a run: {line}") from error


def _line(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    name = "" if isinstance(error, FlowError) else type(error).__name__
    return ": ".join(part for part in (name, text) if part)
