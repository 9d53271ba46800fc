"""Rows are the same whatever they are written in, and whatever the order in which they are asked for."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridflow.tasks import row_files, unpacked_files
from hybridflow.tasks.open_rows import open_file, open_rows
from hybridflow.tasks.row_files import JsonLines, Rows
from tests.tasks.written_rows import WRITERS, lines, write_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROW = st.fixed_dictionaries({
    "question": TEXT,
    "answer": TEXT,
    "level": st.integers(-(2**53), 2**53),
    "score": st.floats(allow_nan=False, allow_infinity=False),
    "right": st.booleans(),
    "extra": st.fixed_dictionaries({"index": st.integers(0, 9), "note": TEXT}),
    "turns": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), min_size=1, max_size=3),
})  # fmt: skip
SHARED = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path: Path | str) -> list[dict[str, Any]]:
    [files] = open_rows("path", str(path), None, None).values()
    rows = Rows(files)
    return [rows.row(number) for number in range(len(rows))]


@pytest.mark.parametrize("way", sorted(set(WRITERS) - {"saved"}))
@given(rows=st.lists(ROW, min_size=1, max_size=9), data=st.data())
@SHARED
def test_any_rows_are_read_as_they_were_written_in_any_order(
    way: str, rows: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = WRITERS[way](tmp_path_factory.mktemp("rows"), rows)
    assert read(file) == rows
    found = open_file(file)
    order = data.draw(st.permutations(range(len(rows))))
    assert [found.row(number) for number in order] == [rows[number] for number in order]


def test_a_dataset_saved_on_disk_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"question": f"é{n}", "answer": n, "extra": {"note": None}, "turns": [{"role": "user"}]} for n in range(7)]
    assert read(WRITERS["saved"](tmp_path, rows)) == rows


@given(texts=st.lists(TEXT, min_size=1, max_size=40), block=st.integers(1, 50), seed=st.integers(0, 99))
@SHARED
def test_any_row_is_found_at_once_wherever_blocks_end(
    texts: list[str], block: int, seed: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": text} for text in texts]
    file = write_jsonl(tmp_path_factory.mktemp("rows"), rows)
    monkeypatch.setattr(row_files, "BLOCK", block)
    found = JsonLines(file)
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    assert [found.row(number) for number in order] == [rows[number] for number in order]


def test_blank_lines_are_no_rows_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\n{"a": 1}\n\r\n   \t\n{"a": 2}\r\n\n')
    rows = open_file(file)
    assert [rows.row(number) for number in range(len(rows))] == [{"a": 1}, {"a": 2}]
    assert [rows.place(number) for number in range(len(rows))] == [f"{file}:2", f"{file}:5"]


@given(elements=st.lists(ROW, max_size=5), chunk=st.integers(1, 40), indent=st.sampled_from([None, 2]))
@SHARED
def test_an_array_is_read_in_parts_of_any_size(
    elements: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.json").write_text(json.dumps(elements, indent=indent, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(unpacked_files, "CHUNK", chunk)
    unpacked_files.array_to_lines("rows.json")(folder / "rows.json", folder / "lines")
    assert [json.loads(line) for line in (folder / "lines").read_bytes().splitlines()] == elements


def test_what_parquet_has_and_json_has_not_becomes_plain(tmp_path: Path) -> None:
    days = [datetime.date(2026, 1, day) for day in range(1, 4)]
    table = pa.table(
        {
            "kind": pa.array(["a", "b", "c"]).dictionary_encode(),
            "day": days,
            "time": pa.array([datetime.datetime(2026, 1, 1, 12)] * 3, pa.timestamp("us")),
            "price": [Decimal("1.50"), Decimal("2.00"), None],
            "image": [b"x", b"y", b"z"],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=1)
    rows = read(tmp_path / "rows.parquet")
    assert [row["kind"] for row in rows] == ["a", "b", "c"] and [row["price"] for row in rows] == [1.5, 2, None]
    assert rows[0] == {"kind": "a", "day": "2026-01-01", "time": "2026-01-01T12:00:00", "price": 1.5}


def test_numbers_of_a_table_that_are_not_finite_name_their_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": 1.0}, {"b": float("nan")}]}), tmp_path / "rows.parquet")
    file = open_file(tmp_path / "rows.parquet")
    assert file.row(0) == {"a": {"b": 1.0}}
    with pytest.raises(ValueError, match=r"column 'a.b' is NaN"):
        file.row(1)


def test_a_list_takes_no_folder_with_splits(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines([{"n": 1}]))
    with pytest.raises(ValueError, match=r"has the splits test, train; in a list give the files of one of them"):
        open_rows("path", [str(tmp_path)], None, None)


def test_a_file_has_no_configuration_and_no_revision(tmp_path: Path) -> None:
    file = str(write_jsonl(tmp_path, [{"a": 1}]))
    with pytest.raises(
        ValueError, match=r"path: .*rows.jsonl is a file, which has no configurations; leave 'main' out"
    ):
        open_rows("path", file, "main", None)
    with pytest.raises(ValueError, match=r"path: .*rows.jsonl is no id of the hub, which alone has revisions"):
        open_rows("path", file, None, "v1")


def test_a_dataset_of_the_hub_is_read_from_what_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    parts = {"train": [{"n": 1}, {"n": 2}], "test": [{"n": 3}]}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    saved.save_to_disk(tmp_path / "fetched")
    asked = []

    def fetch(*names: str | None, **options: str | None) -> datasets.DatasetDict:
        asked.append((names, options))
        return datasets.DatasetDict.load_from_disk(tmp_path / "fetched")

    monkeypatch.setattr(datasets, "load_dataset", fetch)  # there is no network here
    splits = open_rows("path", "owner/name", "main", "v1")
    found = {
        split: [rows.row(n) for n in range(len(rows))] for split, files in splits.items() for rows in [Rows(files)]
    }
    assert found == parts and asked == [(("owner/name", "main"), {"revision": "v1"})]


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"part-{number:02d}.jsonl").write_bytes(lines([{"n": number}, {"n": number + 0.5}]))
    expected = [{"n": n} for n in (1, 1.5, 2, 2.5, 10, 10.5)]
    assert read(f"{tmp_path}/part-*.jsonl") == read(tmp_path) == expected
    [files] = open_rows("path", [f"{tmp_path}/part-10.jsonl", f"{tmp_path}/part-01.jsonl"], None, None).values()
    assert [file.row(0)["n"] for file in files] == [10, 1]


def test_what_was_unpacked_is_found_again_until_the_file_changes(tmp_path: Path, cache: Path) -> None:
    file = WRITERS["gzip"](tmp_path, [{"a": 1}])
    for _ in range(2):
        assert read(file) == [{"a": 1}]
        assert len(list(cache.rglob("*.jsonl"))) == 1
    WRITERS["gzip"](tmp_path, [{"a": 2}, {"a": 3}])
    assert read(file) == [{"a": 2}, {"a": 3}]


def test_a_file_that_changes_while_it_is_read_says_so(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path, [{"a": 1}, {"a": 2}])
    rows = open_file(file)
    write_jsonl(tmp_path, [{"a": 1}])
    with pytest.raises(ValueError, match="the file has changed since this run began to read it"):
        rows.row(1)
