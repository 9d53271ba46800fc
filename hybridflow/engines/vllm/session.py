"""Session of vLLM's engine in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from hybridflow.batch import Ragged
from hybridflow.engines.generation_session import Request, Session
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.engines.vllm.requests import finished_row


class VllmSession(Session):
    """Rows under way in vLLM; `advance` is one step of its engine.

    Args:
        engine: vLLM's LLMEngine, idle.
        stop_ids: as those of `VllmEngine`.
        wanted: gives vLLM's parameters of rows, checked.
        held: lets new weights come while rows are under way.
    """

    def __init__(
        self,
        engine: Any,
        stop_ids: Sequence[int],
        wanted: Callable[[Ragged, Sampling, Sequence[int]], list[Any]],
        held: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._engine = engine
        self._stop_ids = stop_ids
        self._wanted = wanted
        self._held = held
        self._renewed = 0  # how often, with the cache kept
        self._names: dict[int, str] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        for one in requests:
            wanted = self._wanted(Ragged.of([one.prompt], np.int64), one.sampling, [one.seed])
            self.add([(one.row, one.prompt)], wanted)

    def add(self, rows: Iterable[tuple[int, np.ndarray]], wanted: Sequence[Any]) -> None:
        """Take up rows, by their numbers, with vLLM's parameters of each, as `requests.parameters` makes them."""
        from vllm.inputs import tokens_input

        salt = str(self._renewed) if self._renewed else None
        for (row, prompt), one in zip(rows, wanted, strict=True):
            self._names[row] = self._engine.add_request(str(row), tokens_input(prompt.tolist(), cache_salt=salt), one)

    def advance(self) -> list[FinishedRow]:
        rows = [finished_row(one, self._stop_ids) for one in self._engine.step()]
        for row in rows:
            self._names.pop(row.row, None)
        return rows

    def abort(self, rows: Collection[int]) -> None:
        self._engine.abort_request([self._names.pop(row) for row in rows if row in self._names], internal=True)

    def written(self) -> dict[int, int]:
        requests = self._engine.engine_core.engine_core.scheduler.requests
        return {row: requests[name].num_output_tokens for row, name in self._names.items()}

    @contextmanager
    def renewing(self, *, keeps_cache: bool) -> Iterator[None]:
        if keeps_cache:
            # Blocks that rows hold stay in vLLM's prefix cache; under another salt no later row finds them there.
            self._renewed += 1
        elif not self._engine.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM did not empty its cache: what it would generate may be of older weights")
        with self._held():
            yield

    @property
    def pending(self) -> bool:
        return bool(self._engine.has_unfinished_requests())

    def close(self) -> None:
        self._engine.abort_request(list(self._names.values()), internal=True)
        self._names.clear()
