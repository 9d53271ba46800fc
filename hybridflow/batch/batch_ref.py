"""BatchRef: the controller's handle on rows that live elsewhere.

Row operations touch row numbers only. Where rows are, and how one gets at them, is the business of their `Chunk`s;
this module asks a chunk for nothing unless it is asked for rows (`get`) or for what is known about them (`metadata`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch.batch import Batch, gather
from hybridflow.batch.columns import row_numbers
from hybridflow.batch.lineage import KIN, PLACE, Lineage, new_kin
from hybridflow.batch.row_operations import Rows
from hybridflow.batch.row_source import LocalChunk, Metadata, Source
from hybridflow.former_names import said_of

Origin = np.ndarray | range
TOKEN_COLUMNS = ("prompt_ids", "response_ids")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class BatchRef(Rows):
    """Reference to rows, with the same row operations as `Batch`.

    Attributes:
        rows: R.
        sources: where each column is.
        driver_columns: [R] int64 columns that the controller knows itself and that travel with a call: `group_id`
            (rows with the same number are samples of one prompt) and `copy_id` (which of them a row is).
        origin: while a call is under way, which of the caller's rows each one is: [R] int64, or a range; else None.
        lineage: where the rows come from; see `hybridflow.batch.lineage`.
    """

    rows: int
    sources: tuple[Source, ...]
    driver_columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    origin: Origin | None = field(default_factory=lambda: None)
    lineage: Lineage = field(default_factory=dict)

    def __init__(
        self,
        rows: int,
        sources: tuple[Source, ...],
        driver_columns: Mapping[str, np.ndarray] | None = None,
        origin: Origin | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        self.__dict__.update(  # a call makes many of them
            rows=rows, sources=sources, driver_columns=driver_columns or {}, origin=origin, lineage=lineage or {}
        )

    @staticmethod
    def from_chunk(chunk: Any, rows: int, columns: Iterable[str], origin: Origin | None = None) -> BatchRef:
        """Refer to all rows of one chunk."""
        return BatchRef(rows, (Source(tuple(columns), ((chunk, 0, rows),)),), None, origin)

    @staticmethod
    def from_local(batch: Batch) -> BatchRef:
        """Refer to rows of this process."""
        return BatchRef.from_chunk(LocalChunk(batch), len(batch), batch.columns)

    @staticmethod
    def deferred(find: Callable[[], BatchRef]) -> BatchRef:
        """Make a reference of which nothing is known: the first question about its rows calls `find`, which may wait.

        To look at the reference itself is no such question: `repr`, `hasattr` for what no reference has, a copy, a
        comparison, a shell's completion.
        """
        ref: BatchRef = object.__new__(BatchRef)
        ref.__dict__["_find"] = find
        return ref

    def __getattr__(self, name: str) -> Any:
        """Look up what is not there: the fields of a reference made by `deferred`."""
        if name not in FIELDS or "_find" not in self.__dict__:
            raise AttributeError(f"BatchRef has no {name!r}{said_of(BatchRef, name)}")
        resolved = self.__dict__["_find"]()
        self.__dict__.update({field: getattr(resolved, field) for field in FIELDS})
        self.__dict__.pop("_find", None)
        return self.__dict__[name]

    def __getitem__(self, key: object) -> NoReturn:
        """Raise TypeError: what is here are names of rows and columns, not their values."""
        if isinstance(key, str):
            hint = f"ref.select_columns([{key!r}]) refers to a column, and .get() brings its values here"
        else:
            hint = "ref.slice(0, 4) and ref.select([0, 2]) refer to some of its rows"
        raise TypeError(f"a BatchRef is not indexed, as its rows are elsewhere: {hint}")

    def __repr__(self) -> str:
        if "_find" in self.__dict__:
            return "BatchRef(of rows that are not known yet)"
        return f"BatchRef({self.rows} rows: {', '.join(self.columns)})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return (*[name for source in self.sources for name in source.columns], *self.driver_columns)

    def __len__(self) -> int:
        return self.rows

    def select(self, rows: ArrayLike) -> BatchRef:
        index = row_numbers(rows, self.rows)
        sources = tuple(source.select(index) for source in self.sources)
        origin = None if self.origin is None else np.asarray(self.origin)[index]
        return BatchRef(len(index), sources, _at(self.driver_columns, index), origin, _at(self.lineage, index))

    def slice(self, start: int, stop: int) -> BatchRef:
        return self._sliced(start, stop, None if self.origin is None else self.origin[start:stop])

    def part(self, start: int, stop: int) -> BatchRef:
        """Return `slice`, for a part of a call: its rows know which of the caller's they are; see `origin`."""
        return self._sliced(start, stop, range(start, stop) if self.origin is None else self.origin[start:stop])

    def _sliced(self, start: int, stop: int, origin: Origin | None) -> BatchRef:
        self._check_slice(start, stop)
        rows = slice(start, stop)
        sources = tuple([source.slice(start, stop) for source in self.sources])
        return BatchRef(stop - start, sources, _at(self.driver_columns, rows), origin, _at(self.lineage, rows))

    def with_origin(self, origin: Origin | None) -> BatchRef:
        """Return the same rows as part of a call; see `origin`."""
        if origin is self.origin:
            return self
        return BatchRef(self.rows, self.sources, self.driver_columns, origin, self.lineage)

    def placed(self, places: np.ndarray) -> BatchRef:
        """Return the same rows, whose prompts have these places in the order of the run; see `lineage`."""
        return replace(self, lineage={**self.lineage, PLACE: places})

    def for_call(self, **marks: np.ndarray) -> BatchRef:
        """Return the same rows as a call takes them, with more marks: part of no other call, without their lineage."""
        if self.origin is None and not self.lineage and not marks:
            return self
        return BatchRef(self.rows, self.sources, {**self.driver_columns, **marks})

    def select_columns(self, names: Iterable[str]) -> BatchRef:
        """Return only these columns, and the marks."""
        wanted = set(names)
        if wanted.issuperset(self.columns):
            return self
        kept = ((s.those(wanted), s.runs) for s in self.sources)
        sources = tuple(Source(columns, runs) for columns, runs in kept if columns)
        return BatchRef(self.rows, sources, self.driver_columns, self.origin, self.lineage)

    def repeat(self, times: int, *, interleave: bool = True) -> BatchRef:
        """Repeat each row `times` times; the copies of a row become one group."""
        index = np.arange(self.rows)
        copies = super().repeat(times, interleave=interleave)
        group, copy = (np.repeat(index, times), np.tile(np.arange(times), self.rows)) if interleave else (
            np.tile(index, times), np.repeat(np.arange(times), self.rows))  # fmt: skip
        lineage = {**copies.lineage, KIN: new_kin(group)}
        return BatchRef(copies.rows, copies.sources, {"group_id": group, "copy_id": copy}, copies.origin, lineage)

    def __or__(self, other: BatchRef) -> BatchRef:
        """Union of columns. Raises ValueError for a column given twice, or other rows by their number or marks."""
        if self.rows != other.rows:
            raise ValueError(f"union of {self.rows} rows {self.columns} with {other.rows} rows {other.columns}")
        shared = set(self.driver_columns) & set(other.driver_columns)
        twice = (set(self.columns) & set(other.columns)) - shared
        if twice:
            raise ValueError(f"columns given twice: {', '.join(sorted(twice))}")
        differing = sorted(
            name for name in shared if not np.array_equal(self.driver_columns[name], other.driver_columns[name])
        )
        if differing:
            raise ValueError(f"union of rows that are not the same: they differ in {', '.join(differing)}")
        marks = {**other.driver_columns, **self.driver_columns}
        lineage = {**other.lineage, **self.lineage}
        return BatchRef(self.rows, self.sources + other.sources, marks, self.origin, lineage)

    # What these wait for are the reports of the ranks, which are small; only `get` moves rows.

    @property
    def schema(self) -> dict[str, str]:
        """Kind of each column; see `columns.kind_of`. Waits until the rows have been made."""
        kinds = {name: "int" for name in self.driver_columns}
        for source in self.sources:
            for chunk in source.chunks:
                kinds |= {name: kind for name, kind in chunk.metadata().kinds.items() if name in source.columns}
        return kinds

    def lengths(self, column: str) -> np.ndarray:
        """Return the lengths of a ragged column's rows, [R] int64, waiting until they have been made.

        Raises KeyError for any other column.
        """
        source = next((s for s in self.sources if column in s.columns), None)
        if source is None:
            raise KeyError(f"no column {column!r} whose lengths could be known; there are {', '.join(self.columns)}")
        return source.of_each(lambda chunk: _lengths(chunk.metadata(), column))

    def tokens(self, columns: Sequence[str] = TOKEN_COLUMNS) -> np.ndarray:
        """Count each row's tokens, prompt and response together, [R] int64, waiting until both have been made.

        Raises KeyError if there is neither.
        """
        lengths = [self.lengths(column) for column in columns if column in self.columns]
        if not lengths:
            raise KeyError(
                f"rows have tokens if they have {' or '.join(columns)}; these have {', '.join(self.columns)}"
            )
        return np.sum(lengths, axis=0)

    def numbers(self, column: str) -> np.ndarray:
        """Return what reports say of the rows of a small column, [R], waiting until they have been made.

        These are the values of grades and of `truncated`; of `loss_mask` they are how many tokens of a row it leaves.

        Raises KeyError for a column that is not there, or of another kind than it should be.
        """
        source = next((s for s in self.sources if column in s.columns), None)
        if source is None:
            raise KeyError(f"no column {column!r} whose numbers could be known; there are {', '.join(self.columns)}")
        return source.of_each(lambda chunk: _numbers(chunk.metadata(), column))

    def metadata(self) -> Metadata:
        """Return what is known of the rows without moving them, waiting until they have been made."""
        kinds = self.schema
        lengths = {name: self.lengths(name) for name, kind in kinds.items() if kind.startswith("ragged")}
        reported = {name for source in self.sources for chunk in source.chunks for name in chunk.metadata().numbers}
        return Metadata(self.rows, kinds, lengths, {name: self.numbers(name) for name in reported & kinds.keys()})

    def get(self) -> Batch:
        """Move the rows here. Waits until they have been made. For looking at a result, not for a training step."""
        here = {chunk: chunk.get() for source in self.sources for chunk in source.chunks}
        rows = (gather([(here[c], a, b) for c, a, b in s.runs], s.columns) for s in self.sources)
        return Batch(**dict(chain.from_iterable(columns.items() for columns in rows)), **self.driver_columns)

    def _key(self, name: str) -> np.ndarray:
        if name not in self.driver_columns:
            raise KeyError(
                f"the controller knows the values of {', '.join(self.driver_columns) or 'no column'}, not of {name!r}"
            )
        return self.driver_columns[name]


FIELDS = frozenset(field.name for field in fields(BatchRef))


def _lengths(known: Metadata, column: str) -> np.ndarray:
    if known.rows and column not in known.lengths:
        raise KeyError(f"column {column!r} is {known.kinds.get(column, 'not there')}; only ragged columns have lengths")
    return known.lengths.get(column, np.zeros(0, dtype=np.int64))


def _numbers(known: Metadata, column: str) -> np.ndarray:
    if known.rows and column not in known.numbers:
        raise KeyError(
            f"column {column!r} is {known.kinds.get(column, 'not there')}; one number a row was expected, or of a mask "
            "one a token"
        )
    return known.numbers.get(column, np.zeros(0, dtype=np.int64))


def _at(columns: Mapping[str, np.ndarray], rows: np.ndarray | slice) -> Mapping[str, np.ndarray]:
    """Select rows of marks or of a lineage, which are often empty: a call makes many references."""
    return {name: values[rows] for name, values in columns.items()} if columns else columns
