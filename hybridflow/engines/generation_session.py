"""Session: rows under way in a generation engine that others may join while they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.engines.sampling import FinishedRow, Sampling

if TYPE_CHECKING:
    from hybridflow.engines.base import GenerationEngine


class Request(NamedTuple):
    """Row that is to be sampled.

    Attributes:
        row: its number; no other row under way has it.
        prompt: [N] int64.
        seed: of its random stream.
    """

    row: int
    prompt: np.ndarray
    sampling: Sampling
    seed: int


class Session(ABC):
    """Rows under way on the weights that an engine has.

    All ranks of a replica make the same calls in the same order. Between two calls of `advance` everything rests at a
    token boundary. What came before a session does not show in it; its own rows may use what others of them computed.

    Attributes:
        waited: seconds in which there was nothing to compute, as the rows under way waited for somebody else.
    """

    waited: float = 0.0

    @abstractmethod
    def submit(self, requests: Sequence[Request]) -> None:
        """Take up rows. Raises ValueError as `GenerationEngine.stream`."""

    def begin(self, rows: Batch, requests: Sequence[Request]) -> None:
        """Take up rows whose columns are here too, for a session that asks others about them. Raises as `submit`."""
        self.submit(requests)

    @abstractmethod
    def advance(self) -> list[FinishedRow]:
        """Let the rows under way go on for a while, a token where the engine can; return those that finished."""

    @abstractmethod
    def abort(self, rows: Collection[int]) -> None:
        """End rows, of which nothing is wanted any more. Their numbers are free; those that have finished are none."""

    def written(self) -> dict[int, int]:
        """Return how many tokens each row under way has, by its number.

        Raises NotImplementedError if the engine's rows do not go on with other weights (`GenerationBackend.renews`).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how far its rows are")

    def renewing(self, *, keeps_cache: bool) -> AbstractContextManager[None]:
        """Let the engine be given other weights in the block; the rows under way then go on with these.

        Args:
            keeps_cache: keys and values of the tokens that they have are those of the weights that computed them; else
                they are computed again. Rows that are submitted afterwards never use those of older weights.

        Raises NotImplementedError as `written`.
        """
        raise NotImplementedError(f"rows of {type(self).__name__} do not go on with other weights")

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether any row is under way."""

    @property
    def computes(self) -> bool:
        """Whether `advance` would compute anything; else the rows under way wait for somebody else."""
        return self.pending

    @abstractmethod
    def close(self) -> None:
        """End all rows; the engine is free for other calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class RoundSession(Session):
    """Session of an engine that has `stream` alone: rows join when those before them have finished."""

    def __init__(self, engine: GenerationEngine) -> None:
        self._engine = engine
        self._waiting: list[Request] = []
        self._round: Iterator[list[tuple[Request, FinishedRow]]] | None = None
        self._left: dict[int, Request] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting += requests
        self._left |= {one.row: one for one in requests}

    def advance(self) -> list[FinishedRow]:
        if self._round is None:
            waiting, self._waiting = self._waiting, []
            self._round = self._streams(waiting)
        finished = next(self._round, None)
        if finished is None:
            self._round = None
            return []
        # One that was aborted is sampled to its end; another may have its number by then.
        rows = [row for request, row in finished if self._left.get(row.row) is request]
        for row in rows:
            del self._left[row.row]
        return rows

    def abort(self, rows: Collection[int]) -> None:
        self._waiting = [one for one in self._waiting if one.row not in rows]
        for row in rows:
            self._left.pop(row, None)

    @property
    def pending(self) -> bool:
        return bool(self._left)

    def close(self) -> None:
        self._waiting = []
        self._left = {}
        self._round = None

    def _streams(self, requests: Sequence[Request]) -> Iterator[list[tuple[Request, FinishedRow]]]:
        """Yield the rows of one stream after the other, each of rows that are sampled alike."""
        for sampling, alike in groupby(requests, key=lambda one: one.sampling):
            group = list(alike)
            prompts = Ragged.of([one.prompt for one in group], np.int64)
            for rows in self._engine.stream(prompts, sampling, [one.seed for one in group]):
                yield [(group[row.row], row._replace(row=group[row.row].row)) for row in rows]
