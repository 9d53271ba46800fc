"""Rows of `benchmarks.badinput`: files that are not what their names say, or are not whole; tables."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.badinput_case import GOOD, GOOD_TEXT, GOODS, PACKED, Case, Writer, both, content, data, lines, nothing


def table(make: Callable[[Any], Any], name: str = "rows.parquet") -> Writer:
    """Write a Parquet file of the table that a function makes with pyarrow."""

    def write(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(make(pa), folder / name)

    return write


def cut(writer: Writer, name: str, keep: float) -> Writer:
    """Cut a file short."""

    def write(folder: Path) -> None:
        writer(folder)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return write


def fifo(folder: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(folder / "rows.jsonl")


def loop(folder: Path) -> None:
    """Make a link to itself."""
    (folder / "rows.jsonl").symlink_to("rows.jsonl")


def _parquet(name: str, said: str, make: Callable[[Any], Any], *settings: str, **more: Any) -> Case:
    return data(f"parquet: {name}", said, table(make), *settings, path="rows.parquet", **more)


def _long_line(folder: Path) -> None:
    with (folder / "rows.jsonl").open("w") as file:
        file.write(json.dumps(GOOD[0]) + "\n" + '{"question": "')
        for _ in range(200):
            file.write("x" * 1_000_000)
        file.write('", "answer": "2"}\n')


def _zst(folder: Path) -> None:
    import zstandard

    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(GOOD_TEXT.encode()))


def _saved(folder: Path) -> None:
    (folder / "saved" / "train").mkdir(parents=True)
    (folder / "saved" / "dataset_dict.json").write_text("[1, 2]")


def _saved_state(folder: Path) -> None:
    (folder / "saved").mkdir()
    (folder / "saved" / "state.json").write_text('{"_data_files": [{"filename": "../../etc/passwd"}]}')


FILES = (
    data("empty", r"rows\.jsonl is empty", content("rows.jsonl", b"")),
    data("only blank lines", "no rows", content("rows.jsonl", b"\n\n  \n")),
    data("only a byte order mark", "rows", content("rows.jsonl", b"\xef\xbb\xbf")),
    data("not there", "there is no file or folder missing.jsonl", nothing, path="missing.jsonl"),
    data("a folder without rows", "has no files of rows", lambda folder: (folder / "rows").mkdir(), path="rows"),
    data("a folder called rows.jsonl", "has no files of rows", lambda folder: (folder / "rows.jsonl").mkdir()),
    data("a link to itself", r"rows\.jsonl", loop),
    data("a broken link", r"rows\.jsonl", lambda folder: (folder / "rows.jsonl").symlink_to("gone")),
    data("a pipe", r"rows\.jsonl.*(pipe|file)", fifo),
    data("a device", "no file", lambda folder: (folder / "zero.jsonl").symlink_to("/dev/zero"), path="zero.jsonl"),
    data("the null device", "no file", lambda folder: (folder / "n.jsonl").symlink_to("/dev/null"), path="n.jsonl"),
    data("another ending", "ends in '.csv'", content("rows.csv", b"a,b\n"), path="rows.csv"),
    data("no ending", "has no ending", content("rows", b"a,b\n"), path="rows"),
    data("CSV called jsonl", "no row can be read.*not JSON at character 1", content("rows.jsonl", b"a,b\n1,2\n")),
    data("YAML called json", "not JSON", content("rows.json", "- question: 1\n  answer: 2\n"), path="rows.json"),
    data("HTML of an error page", "not JSON", content("rows.jsonl", "<html>\n<body>404</body>\n")),
    data(
        "a pointer of Git LFS",
        "LFS",
        content("rows.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"),
    ),
    data("UTF-16", "UTF-16; UTF-8 was expected", content("rows.jsonl", GOOD_TEXT.encode("utf-16"))),
    data("UTF-16 without a mark", "not JSON|not UTF-8|NUL", content("rows.jsonl", GOOD_TEXT.encode("utf-16-le"))),
    data("UTF-32", "UTF-16|UTF-32|not", content("rows.jsonl", GOOD_TEXT.encode("utf-32"))),
    data("random bytes", "no row can be read", content("rows.jsonl", bytes(range(256)) * 50)),
    data("zeros", "no row can be read", content("rows.jsonl", bytes(4096))),
    data("Parquet called jsonl", "no row can be read", both(table(lambda pa: pa.table({"a": [1]}), "rows.jsonl"))),
    data(
        "JSON lines called parquet", "not readable as Parquet", content("rows.parquet", GOOD_TEXT), path="rows.parquet"
    ),
    data("an empty parquet", "empty", content("rows.parquet", b""), path="rows.parquet"),
    data("JSON lines called arrow", "not readable as Arrow", content("rows.arrow", GOOD_TEXT), path="rows.arrow"),
    data("an empty arrow", "empty", content("rows.arrow", b""), path="rows.arrow"),
    data(
        "a cut parquet",
        "not readable as Parquet",
        cut(table(lambda pa: pa.table({"question": ["a"] * 99, "answer": ["b"] * 99})), "rows.parquet", 0.6),
        path="rows.parquet",
    ),
    data("a cut gz", "cut short", cut(PACKED, "rows.jsonl.gz", 0.6), path="rows.jsonl.gz"),
    data("JSON called gz", "no gzip file", content("rows.jsonl.gz", GOOD_TEXT), path="rows.jsonl.gz"),
    data("an empty gz", "empty|cut short", content("rows.jsonl.gz", b""), path="rows.jsonl.gz"),
    data("a gz of nothing", "empty", content("rows.jsonl.gz", gzip.compress(b"")), path="rows.jsonl.gz"),
    data(
        "gz twice",
        "no row can be read",
        content("rows.jsonl.gz", gzip.compress(gzip.compress(GOOD_TEXT.encode()))),
        path="rows.jsonl.gz",
    ),
    data(
        "gz with a flipped byte",
        "gzip|crc|CRC",
        content("rows.jsonl.gz", gzip.compress(GOOD_TEXT.encode())[:-6] + b"abcdef"),
        path="rows.jsonl.gz",
    ),
    data("a cut zst", "cut short", cut(_zst, "rows.jsonl.zst", 0.6), path="rows.jsonl.zst"),
    data("JSON called zst", "no zstd file", content("rows.jsonl.zst", GOOD_TEXT), path="rows.jsonl.zst"),
    data("an empty zst", "empty|cut short|zstd", content("rows.jsonl.zst", b""), path="rows.jsonl.zst"),
    data("a dataset_dict.json that is a list", "dataset_dict", _saved, path="saved"),
    data("a state.json that leads out", "save_to_disk|not there|saved", _saved_state, path="saved"),
    data(
        "the file that a saved dataset names is gone",
        "is not there",
        both(content("saved/state.json", '{"_data_files": [{"filename": "data.arrow"}]}')),
        path="saved",
    ),
    data("a line of 200 MB", "has 200000000 characters; at most", _long_line),
    data("no file of a glob", "matches no file", nothing, path="'parts/*.jsonl'"),
    data(
        "a glob of several formats",
        "several formats",
        both(
            lines("p/a.jsonl", *GOOD), table(lambda pa: pa.table({"question": ["1"], "answer": ["1"]}), "p/b.parquet")
        ),
        path="'p/*'",
    ),
    data("an empty list of files", "path", nothing, path="[]"),
    data("a list with a number", "path: .*3.* given", nothing, path="[3]"),
    data("a number", "path: 3 given", nothing, path="3"),
    data("no path", "path: must be given", nothing, path="null"),
    data("a mapping", "path", nothing, path="{a: 1}"),
    data("a name of brackets that is not there", r"matches no file|there is no file", nothing, path="'rows[1].jsonl'"),
    data("a NUL in the name", "path", nothing, path="'a\0.jsonl'"),
    data("a name of 5,000 letters", "path: .*(long|no file)", nothing, path="a" * 5000 + ".jsonl"),
    data("a home that nobody has", "there is no file", nothing, path="~nobody123/rows.jsonl"),
    data("a hub id, offline", "network|offline|hub", nothing, path="owner/dataset"),
    data("a revision of a file", "revision", GOODS, "task.options.revision=main"),
    data("a config of a file", "has no configurations", GOODS, "task.options.config=main"),
)

TABLES = (
    _parquet(
        "no rows",
        "no rows",
        lambda pa: pa.table({"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())}),
    ),
    _parquet("no columns", "no (rows|format|column)", lambda pa: pa.table({})),
    _parquet(
        "a question of bytes", "question|bytes", lambda pa: pa.table({"question": [b"a"] * 9, "answer": ["1"] * 9})
    ),
    _parquet("only columns of bytes", "fit no format|bytes|no row", lambda pa: pa.table({"image": [b"a"] * 9})),
    _parquet(
        "a question of lists", "column 'question'", lambda pa: pa.table({"question": [["a"]] * 9, "answer": ["1"] * 9})
    ),
    _parquet(
        "an answer that is null now and then",
        "row 5: column 'answer' is (None, )?null",
        lambda pa: pa.table(
            {"question": [str(n) for n in range(9)], "answer": [None if n == 5 else "1" for n in range(9)]}
        ),
    ),
    _parquet(
        "an answer of timestamps",
        "answer",
        lambda pa: pa.table(
            {"question": [str(n) for n in range(9)], "answer": pa.array([None] * 9, pa.timestamp("us"))}
        ),
    ),
    _parquet(
        "NaN beside",
        "row 5: column 'x' is NaN",
        lambda pa: pa.table(
            {
                "question": [str(n) for n in range(9)],
                "answer": ["1"] * 9,
                "x": [float("nan") if n == 5 else 1.0 for n in range(9)],
            }
        ),
    ),
    _parquet(
        "a time beyond the calendar",
        "row|when|x",
        lambda pa: pa.table(
            {
                "question": [str(n) for n in range(9)],
                "answer": ["1"] * 9,
                "when": pa.array([2**52] * 9, pa.timestamp("s")),
            }
        ),
    ),
    _parquet(
        "a map column with keys that are no texts",
        "no rows|row|reward|.",
        lambda pa: pa.table(
            {
                "question": [str(n) for n in range(9)],
                "answer": [None] * 9,
                "m": pa.array([[(1, "a")]] * 9, pa.map_(pa.int64(), pa.string())),
            }
        ),
    ),
    _parquet(
        "a column twice",
        "column 'question' is there 2 times",
        lambda pa: pa.Table.from_arrays([pa.array(["a"] * 9)] * 3, names=["question", "question", "answer"]),
    ),
    _parquet(
        "half a surrogate",
        "UTF-8|readable|row",
        lambda pa: pa.table(
            {"question": pa.array([b"\xed\xa0\x80"] * 9, pa.binary()).view(pa.string()), "answer": ["1"] * 9}
        ),
    ),
    _parquet(
        "nanoseconds",
        "row|no row|answer|null",
        lambda pa: pa.table(
            {"question": [str(n) for n in range(9)], "answer": [None] * 9, "t": pa.array([1] * 9, pa.timestamp("ns"))}
        ),
    ),
)

CASES = FILES + TABLES
