"""Rows written as people have them: the ways in which tests write a data file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Row = Mapping[str, Any]


def lines(rows: Sequence[Row], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write_jsonl(folder: Path, rows: Sequence[Row]) -> Path:
    return _written(folder / "rows.jsonl", lines(rows))


def write_crlf(folder: Path, rows: Sequence[Row]) -> Path:
    """As Windows writes it: a BOM, CR before LF, and no end of the last line."""
    return _written(folder / "crlf.jsonl", b"\xef\xbb\xbf" + lines(rows, "\r\n").removesuffix(b"\r\n"))


def write_gzip(folder: Path, rows: Sequence[Row]) -> Path:
    return _written(folder / "rows.jsonl.gz", gzip.compress(lines(rows), mtime=0))


def write_zstd(folder: Path, rows: Sequence[Row]) -> Path:
    """In two frames, as two files that were joined."""
    half = len(rows) // 2
    frames = [zstandard.compress(lines(part)) for part in (rows[:half], rows[half:])]
    return _written(folder / "rows.jsonl.zst", b"".join(frames))


def write_array(folder: Path, rows: Sequence[Row]) -> Path:
    return _written(folder / "rows.json", json.dumps(rows, indent=2).encode())


def write_parquet(folder: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet", row_group_size=3)
    return folder / "rows.parquet"


def write_saved(folder: Path, rows: Sequence[Row]) -> Path:
    """As `Dataset.save_to_disk`, in two files."""
    from datasets import Dataset

    Dataset.from_list(list(rows)).save_to_disk(folder / "saved", num_shards=min(2, len(rows)))
    return folder / "saved"


WRITERS: Mapping[str, Callable[[Path, Sequence[Row]], Path]] = {
    "jsonl": write_jsonl,
    "crlf": write_crlf,
    "gzip": write_gzip,
    "zstd": write_zstd,
    "array": write_array,
    "parquet": write_parquet,
    "saved": write_saved,
}


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file
