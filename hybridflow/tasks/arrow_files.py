"""Rows of Arrow files through a memory map, and Parquet files made into such."""

from __future__ import annotations

import datetime
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.json_file import refuse_pointer
from hybridflow.tasks.reading_progress import ReadingProgress
from hybridflow.tasks.row_files import FileState
from hybridflow.tasks.strict_json import RowError, refuse_not_finite

if TYPE_CHECKING:
    import pyarrow as pa

OPEN = 64  # files that are mapped at a time: a dataset may have thousands
BATCH = 1024  # rows that are written together
FILE_MARK = b"ARROW1"
LEFT_OUT = b"hybridflow.left_out"  # in the schema of a file that stands for another: the columns that it has not


class ArrowFile:
    """Rows of an Arrow file. Columns of bytes, such as images, are none: JSON has no word for them.

    Args:
        name: what messages call it, if it stands for another file.

    Raises ValueError naming the file if it cannot be read.
    """

    def __init__(self, file: Path, name: str = "") -> None:
        self.file = file
        self._name = name or str(file)
        self._state = FileState.of(file)
        batches = self._batches()
        self._starts = [0, *np.cumsum([batch.num_rows for batch in batches], dtype=np.int64).tolist()]
        schema = batches[0].schema if batches else []
        own = tuple(field.name for field in schema if _has_bytes(field.type))
        about = batches[0].schema.metadata or {} if batches else {}
        before = json.loads(about.get(LEFT_OUT, b"[]"))
        self.left_out = (*before, *own)
        self._columns = [field.name for field in schema if field.name not in own]
        _refuse_twice(self._name, self._columns)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        batch = bisect_right(self._starts, number) - 1
        one = self._batches()[batch].slice(number - self._starts[batch], 1).select(self._columns)
        try:
            [row] = one.to_pylist()
        except (ValueError, OverflowError):
            row = {name: _value(column, name) for name, column in zip(self._columns, one, strict=True)}
        plain = {name: _plain(value, name) for name, value in row.items()}
        refuse_not_finite(plain)
        return plain

    def place(self, number: int) -> str:
        return f"{self._name}: row {number}"

    def _batches(self) -> list[pa.RecordBatch]:
        try:
            return _mapped(self.file, self._state)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._name}: not readable as Arrow: {error}") from error


@lru_cache(OPEN)
def _mapped(file: Path, state: FileState) -> list[pa.RecordBatch]:
    """Return the batches of a file, which take no memory until they are read. Raises ValueError if it is another."""
    import pyarrow as pa

    with file.open("rb") as opened:
        head = opened.read(64)
    if FileState.of(file) != state:
        raise ValueError("the file has changed since this run began to read it; start again")
    if not head:
        raise ValueError("the file is empty (0 bytes)")
    refuse_pointer(file, head)
    source = pa.memory_map(str(file))
    if head.startswith(FILE_MARK):
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return list(pa.ipc.open_stream(source))  # as `datasets` writes it


def parquet_to_arrow(file: Path, target: Path) -> None:
    """Write the rows of a Parquet file as Arrow. Raises ValueError naming the file if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as opened:
        head = opened.read(64)
    if not head:
        raise ValueError(f"{file} is empty (0 bytes); rows were expected")
    refuse_pointer(file, head)
    try:
        parquet = pq.ParquetFile(file)
        progress = ReadingProgress(f"unpacking {file}", parquet.metadata.num_rows)
        _refuse_twice(str(file), parquet.schema_arrow.names)
        kept = [field.name for field in parquet.schema_arrow if not _has_bytes(field.type)]
        left_out = [name for name in parquet.schema_arrow.names if name not in kept]
        fields = [(name, _without_dictionary(parquet.schema_arrow.field(name).type)) for name in kept]
        schema = pa.schema(fields, {LEFT_OUT: json.dumps(left_out)})
        done = 0
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in parquet.iter_batches(BATCH, columns=kept):
                writer.write_batch(batch.cast(schema))
                done += batch.num_rows
                progress.at(done)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} is not readable as Parquet: {error}") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, not of what is in the file
            raise
        raise ValueError(f"{file} is not readable as Parquet: {error}") from error


def _refuse_twice(file: str, columns: Sequence[str]) -> None:
    """Raise ValueError for a column that is there twice."""
    for name, times in Counter(columns).items():
        if times > 1:
            raise ValueError(f"{file}: column {name!r} is there {times} times; once was expected")


def _value(column: pa.Array, name: str) -> Any:
    """Return the one value of a column of one row. Raises RowError for what Python cannot have."""
    try:
        return column[0].as_py()
    except UnicodeDecodeError as error:
        raise RowError(f"column {name!r} is not UTF-8 ({error.reason})", "not UTF-8") from error
    except (ValueError, OverflowError) as error:  # a time outside of the calendar, or of nanoseconds
        raise RowError(f"column {name!r}, {column.type}, cannot be read: {error}", "no JSON value") from error


def _without_dictionary(kind: pa.DataType) -> pa.DataType:
    """Return the type of a category's values: each part of a Parquet file may number them anew, an Arrow file not."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _has_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = [kind.field(number).type for number in range(kind.num_fields)]
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(is_bytes) or any(map(_has_bytes, inner))


def _plain(value: Any, column: str) -> Any:
    """Return a value as JSON would have it: times as texts, decimals as numbers."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(entry, column) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, column) for entry in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    raise RowError(f"column {column!r} has a {type(value).__name__}, which JSON cannot say", "no JSON value")
