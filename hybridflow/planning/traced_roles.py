"""Roles of a flow that is traced: each notes its calls, and gives references without rows behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.batch import Batch
from hybridflow.batch.row_source import LocalChunk, Metadata
from hybridflow.config.schema import Config
from hybridflow.dispatch import Method, Result, protocols, with_columns
from hybridflow.dispatch.method import methods
from hybridflow.errors import HybridFlowError
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.roles import AdvantageRole, Role

MAX_CALLS = 2_000  # of a step: a flow that makes more has no end


class FlowError(HybridFlowError):
    """Raised for a flow that cannot be traced."""


@dataclass
class Notebook:
    """Notes of what was called so far.

    Attributes:
        awaited: calls whose values the flow has asked for, so that it made no other before they were done.
        samples: what is called is part of `rollout`.
        kept_share: of the groups, those whose rewards differ.
    """

    kept_share: float
    response_tokens: int
    calls: list[FlowCall] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    awaited: set[int] = field(default_factory=set)
    samples: bool = True
    unequal: float = 0.0

    def differs(self, groups: int) -> np.ndarray:
        """Tell of further groups which have rewards that differ, [groups], so that the share comes true in all."""
        ends = np.floor(self.unequal + self.kept_share * np.arange(groups + 1) + 1e-9)
        self.unequal += self.kept_share * groups
        return np.diff(ends) > 0


@dataclass(frozen=True, eq=False)
class TracedChunk:
    """Stands for the rows that a call would have made."""

    notebook: Notebook
    call: int
    rows: int
    kinds: Mapping[str, str]
    groups: np.ndarray

    def metadata(self) -> Metadata:
        """Return expectations, and note that they were asked for."""
        asked = self.notebook.calls[self.call]
        self.notebook.awaited.add(self.call)
        self.notebook.notes[
            f"{asked.role}.{asked.method}: the flow reads what it gives (a filter, a balancer); "
            f"{self.notebook.kept_share:.0%} of the groups are expected to have rewards that differ"
        ] = None
        lengths = np.full(self.rows, self.notebook.response_tokens, dtype=np.int64)
        ragged = {name: lengths for name, kind in self.kinds.items() if kind.startswith("ragged")}
        numbers = {name: self._numbers(name) for name, kind in self.kinds.items() if not kind.startswith("ragged")}
        return Metadata(self.rows, dict(self.kinds), ragged, {**numbers, "loss_mask": lengths})

    def _numbers(self, name: str) -> np.ndarray:
        if "reward" not in name:
            return np.zeros(self.rows)
        _, group = np.unique(self.groups, return_inverse=True)
        differs = self.notebook.differs(int(group.max(initial=-1)) + 1)
        values: np.ndarray = np.arange(self.rows) % 2 * differs[group].astype(np.float64)
        return values

    def get(self) -> Batch:
        asked = self.notebook.calls[self.call]
        raise FlowError(f"it reads the rows that {asked.role}.{asked.method} gives, which are not there before a run")


class TracedResult(Result):
    """Value of a call that gives no rows, which nobody knows."""

    def __init__(self, notebook: Notebook, call: int) -> None:
        self._notebook = notebook
        self._call = call

    def get(self) -> Any:
        self._notebook.awaited.add(self._call)
        return None

    def metadata(self) -> list[Any]:
        self._notebook.awaited.add(self._call)
        return []


class TracedRole:
    """Role of a flow whose calls are noted."""

    def __init__(self, name: str, interface: type[Role], has_model: bool, config: Config, notebook: Notebook) -> None:
        self._name = name
        self._interface = interface
        self._has_model = has_model
        self._notebook = notebook
        more = (interface.more_columns(config), interface.more_read(config))
        self._methods = with_columns(methods(interface), *more)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._methods:
            raise AttributeError(f"role {self._name!r} has no method {name!r}; it has {', '.join(self._methods)}")
        method = self._methods[name]
        return lambda *args, **kwargs: self._call(name, method, args, kwargs)

    def _call(self, name: str, method: Method, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        rows = next((value for value in (*args, *kwargs.values()) if isinstance(value, BatchRef)), None)
        number = self._noted(name, method, rows)
        if not method.returns_rows or rows is None:
            return TracedResult(self._notebook, number)
        if method.gives is None:
            raise FlowError(f"{self._name}.{name} does not declare the columns that it gives (dispatch.using)")
        groups = rows.driver_columns.get("group_id", np.arange(len(rows)))
        kinds = {column: method.kinds.get(column, "float") for column in method.gives}
        chunk = TracedChunk(self._notebook, number, len(rows), kinds, groups)
        made = BatchRef.from_chunk(chunk, len(rows), method.gives)
        if method.streams:
            self._notebook.notes[f"{self._name}.{name}: its rows are expected to come all at once"] = None
            return iter([(np.arange(len(rows)), made)])
        return made

    def _noted(self, name: str, method: Method, rows: BatchRef | None) -> int:
        """Note a call; return its number. One that is given no rows, as a weight sync, is none of the flow's."""
        book = self._notebook
        if rows is None:
            book.notes[f"{self._name}.{name} is called without rows; its time is not counted"] = None
            return -1
        if len(book.calls) >= MAX_CALLS:
            raise FlowError(f"it has made {MAX_CALLS} calls, and has no end")
        work = self._work(name, method)
        book.samples &= work is not Work.train  # of a flow that is one method: all before its first update
        # What a loss reads is not asked: that would import torch, and take longer than all else.
        read = rows if method.reads is None else rows.select_columns(method.reads)
        chunks = [chunk for source in read.sources for chunk in source.chunks]
        after = {chunk.call for chunk in chunks if isinstance(chunk, TracedChunk)} | book.awaited
        kinds = {name: kind for chunk in chunks for name, kind in _kinds(chunk).items()}
        pair = "rejected_ids" in read.columns
        protocol = protocols.get(method.protocol)
        balanced = getattr(protocol, "balance", "tokens") == "tokens"
        book.calls.append(
            FlowCall(
                self._name,
                name,
                work,
                book.samples,
                len(rows),
                tuple(sorted(number for number in after if number >= 0)),
                2 if pair else 1,
                balanced,
                tuple((column, kinds.get(column, "")) for column in read.columns),
            )
        )
        return len(book.calls) - 1

    def _work(self, name: str, method: Method) -> Work:
        if method.samples:
            return Work.generate
        if hasattr(AdvantageRole, name) or name.startswith("log_"):
            return Work.rows
        if not self._has_model:
            return Work.grade
        return Work.train if name.startswith("update") else Work.score


def _kinds(chunk: Any) -> Mapping[str, str]:
    """Return the kinds of a chunk's columns; rows that the flow has made itself are here, and know theirs."""
    known: Mapping[str, str] = chunk.metadata().kinds if isinstance(chunk, LocalChunk) else chunk.kinds
    return known
