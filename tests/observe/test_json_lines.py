"""Lines of JSON are read once each, however a file grows, and whatever else stands in it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.json_lines import FollowedLines, read_lines

HALF = b'{"step": 7, "reward/me'


def test_lines_are_read_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = FollowedLines(file)
    assert lines.read() == [] and not lines.anew
    file.write_bytes(b'{"a": 1}\n' + HALF)
    assert lines.read() == [{"a": 1}]
    assert lines.read() == []
    with file.open("ab") as stream:
        stream.write(b'an": 1.0}\n')
    assert lines.read() == [{"step": 7, "reward/mean": 1.0}] and not lines.anew


def test_a_file_that_was_cut_back_or_replaced_is_read_from_its_begin(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = FollowedLines(file)
    file.write_text('{"a": 1}\n{"a": 2}\n')
    assert len(lines.read()) == 2
    os.truncate(file, 9)
    assert lines.read() == [{"a": 1}] and lines.anew
    assert lines.read() == [] and not lines.anew
    file.write_text('{"a": 8}\n{"a": 9}\n')  # of the same length, and longer than before
    assert lines.read() == [{"a": 8}, {"a": 9}] and lines.anew
    file.unlink()
    assert lines.read() == [] and lines.anew
    assert lines.read() == [] and not lines.anew


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text()), max_size=8), st.lists(st.integers(0, 400)))
def test_however_a_file_grows_each_line_comes_once(objects: list[dict[str, str]], cuts: list[int]) -> None:
    data = "".join(f"{json.dumps(entry)}\n" for entry in objects).encode()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "lines.jsonl"
        lines = FollowedLines(file)
        found = []
        for cut in [*sorted(cuts), len(data)]:
            file.write_bytes(data[:cut])
            found += lines.read()
            assert not lines.anew
    assert found == objects


def test_what_is_no_object_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    assert read_lines(file) == []
    file.write_bytes(b'{"a": 1}\n[1]\n\n{"a": "\xff"}\n' + b"[" * 100_000 + b"\n" + HALF)
    assert read_lines(file) == [{"a": 1}, {"a": "\ufffd"}]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """Of a pipe that would never end."""
    os.mkfifo(tmp_path / "metrics.jsonl")
    assert FollowedLines(tmp_path / "metrics.jsonl").read() == []
    assert read_lines(tmp_path / "metrics.jsonl") == []
