"""RolloutLoop: rows that are sampled over many calls of a role, beside others that come and go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.batch import Batch
from hybridflow.batch.weight_versions import several_runs
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.generation_session import Request, Session
from hybridflow.engines.row_seeds import row_seeds
from hybridflow.engines.sampling import FinishedRow, Generated, Sampling
from hybridflow.workers.generation_worker import measure, sampled
from hybridflow.workers.worker import Context

if TYPE_CHECKING:
    from hybridflow.workers.conversation_loop import ConversationLoop


ANSWER_S = 0.05  # that a call waits for environments where there is nothing to compute: others are to have their turn


@dataclass
class UnderWay:
    """One row that is being sampled.

    Attributes:
        prompted: tokens of its prompt.
        greedy: it takes the likeliest tokens.
        runs: of older weights, each (version, tokens).
    """

    prompted: int
    temperature: float
    greedy: bool
    runs: list[tuple[int, int]] = field(default_factory=list)

    def runs_with(self, version: int, tokens: int) -> list[tuple[int, int]]:
        """Return the runs of a row of so many tokens, of which this version sampled the last."""
        earlier = self.runs
        if earlier and earlier[-1][0] == version:  # it rested, and goes on with the same weights
            earlier = earlier[:-1]
        newest = tokens - sum(count for _, count in earlier)
        return [*earlier, (version, newest)] if newest or not earlier else earlier


class RolloutLoop:
    """Rows under way on this rank's replica. All ranks of a replica make the same calls in the same order.

    The engine's session lasts while rows are under way; so what one step's rows have in caches is gone before those
    of the next begin, as with calls that sample their rows whole, unless the rows of the two overlap.

    Args:
        talks: makes sessions whose rows are conversations; None: they are none.
    """

    def __init__(self, generator: GenerationEngine, context: Context, talks: ConversationLoop | None = None) -> None:
        self._generator = generator
        self._context = context
        self._talks = talks
        self._session: Session | None = None
        self._rows: dict[int, UnderWay] = {}

    def take_up(self, rows: Batch, step: int, changes: dict[str, Any]) -> None:
        """Begin rows. Raises as `GenerationEngine.stream`."""
        config = self._context.config
        sampling = Sampling.of(config.rollout, changes)
        seeds = row_seeds(config.run.seed, step, rows.dense("stream_id").tolist(), self._context.drawn)
        numbers = rows.dense("rollout_id").tolist()
        prompts = rows.ragged("prompt_ids")
        requests = [
            Request(number, prompt, sampling, seed)
            for number, prompt, seed in zip(numbers, prompts, seeds, strict=True)
        ]
        greedy = changes.get("temperature") == 0.0
        self._rows |= {one.row: UnderWay(len(one.prompt), sampling.of_log_probs, greedy) for one in requests}
        if self._session is None and requests:
            self._session = self._begin_session()
        if self._session is not None:
            self._session.begin(rows, requests)

    def stop(self, numbers: Collection[int]) -> None:
        """End those of these rows that are under way."""
        known = [number for number in numbers if number in self._rows]
        if self._session is not None and known:
            self._session.abort(known)
        for number in known:
            del self._rows[number]
        self._rest()

    def go_on(self, engine_steps: int) -> Batch:
        """Let the rows under way go on; return those that finished, with what was measured in the metrics."""
        finished = sorted(self._advance(engine_steps), key=lambda row: row.row)
        known = [self._rows.pop(row.row) for row in finished]
        self._rest()
        for greedy in (False, True):
            part = [number for number, row in enumerate(known) if row.greedy == greedy]
            if not part:
                continue
            prompted = sum(known[number].prompted for number in part)
            measure(self._context.metrics, Generated.of([finished[n] for n in part]), prompted, greedy=greedy)
        return self._columns(finished, known)

    @contextmanager
    def renewing(self, version: int) -> Iterator[None]:
        """Let the engine be given weights of this version in the block, which rows under way go on with."""
        before = self._generator.version
        if self._session is None or before == version:
            yield
            return
        self._note_version()
        with self._session.renewing(keeps_cache=self._context.config.rollout.keep_kv_cache):
            yield

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let the engine fall asleep in the block, which rows under way go on after, once it has weights again."""
        if self._session is None or self._generator.version is None:
            yield
            return
        self._note_version()
        with self._session.renewing(keeps_cache=False):
            yield

    def _note_version(self) -> None:
        """Note which tokens of the rows under way the engine's weights have sampled, if it has not lost them since."""
        version = self._generator.version
        if self._session is None or version is None:
            return
        for number, tokens in self._session.written().items():
            self._rows[number].runs = self._rows[number].runs_with(version, tokens) if tokens else []

    def close(self) -> None:
        """End all rows."""
        self._rows.clear()
        if self._session is not None:
            self._session.close()
        self._session = None

    def _advance(self, engine_steps: int) -> list[FinishedRow]:
        session = self._session
        if session is None:
            return []
        waited = session.waited
        finished: list[FinishedRow] = []
        for _ in range(engine_steps):
            finished += session.advance()
            if not session.computes:  # a call is short: those that wait for their environments are asked in the next
                break
        if self._talks is not None:
            self._context.metrics.max("timing_s/environment", session.waited - waited)
        return finished

    def _begin_session(self) -> Session:
        return self._generator.session() if self._talks is None else self._talks.session(self._generator, ANSWER_S)

    def _rest(self) -> None:
        """End the session once nothing is under way."""
        if self._session is not None and not self._rows:
            self._session.close()
            self._session = None

    def _columns(self, finished: Sequence[FinishedRow], known: Sequence[UnderWay]) -> Batch:
        generated = Generated.of(finished)
        version = -1 if self._generator.version is None else self._generator.version
        lengths = generated.tokens.lengths.tolist()
        runs = several_runs([row.runs_with(version, tokens) for row, tokens in zip(known, lengths, strict=True)])
        temperature = np.array([row.temperature for row in known], dtype=np.float32)
        numbers = np.array([row.row for row in finished], dtype=np.int64)
        return sampled(runs, temperature, generated, talks=self._talks is not None) | Batch(rollout_id=numbers)
