"""Files that grow line by line, on a disk that takes no more: no half line, and what waits for room keeps its place."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.line_file import LineFile, appending
from tests.small_disk import room_for


def test_a_line_without_room_is_an_error_and_not_there_in_part(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    file.add("first")
    with room_for(9), pytest.raises(DiskError, match=rf"^File too large: {file.path}$"):
        file.add("second")
    assert file.path.read_text() == "first\n"
    file.add("third")
    assert file.path.read_text() == "first\nthird\n"


def test_lines_wait_and_it_is_told_once_and_again_when_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    file = LineFile(tmp_path / "metrics.jsonl")
    file.wait_for_room(said.append)
    with room_for(3):
        file.add("first")
        file.add("second")
        assert file.path.read_text() == "" and file.size == 13
    file.add("third")
    assert file.path.read_text() == "first\nsecond\nthird\n"
    assert said == [
        f"warning: File too large: {file.path}: lines of it wait in memory for room",
        f"there is room again for {file.path}: 3 lines had waited",
    ]


def test_lines_that_waited_in_vain_are_counted(tmp_path: Path) -> None:
    said: list[str] = []
    file = LineFile(tmp_path / "metrics.jsonl")
    file.wait_for_room(said.append)
    with room_for(3):
        file.add("first")
        file.close()
    assert said[1:] == [f"warning: File too large: {file.path}: 1 line of it waited for room in vain"]


def test_what_is_written_until_an_error_of_any_kind_is_taken_off(tmp_path: Path) -> None:
    file = tmp_path / "rank0.jsonl"
    file.write_text("a\n")
    with pytest.raises(ZeroDivisionError), appending(file) as stream:
        stream.write(b"b" * 100_000)
        raise ZeroDivisionError
    assert file.read_text() == "a\n"


@given(st.lists(st.one_of(st.text("ab", max_size=9), st.integers(0, 30), st.floats(0, 1)), max_size=12))
def test_it_is_as_if_there_had_always_been_room(acts: list[str | int | float]) -> None:
    """Lines are added, the room changes, and the file goes back to where it was at some time."""
    with TemporaryDirectory() as folder:
        file = LineFile(Path(folder) / "metrics.jsonl")
        file.wait_for_room(lambda _: None)
        wanted = ""
        room = 30
        sizes = [0]
        for act in acts:
            if isinstance(act, int):
                room = act
            elif isinstance(act, float):
                sizes = sizes[: 1 + int(act * (len(sizes) - 1))]
                wanted = wanted[: sizes[-1]]
                file.truncate(sizes[-1])
            else:
                wanted += f"{act}\n"
                with room_for(room):
                    file.add(act)
                sizes.append(file.size)
            assert file.size == len(wanted)
            written = file.path.read_text() if file.path.exists() else ""
            assert wanted.startswith(written) and (not written or written.endswith("\n"))
        file.write_waiting()
        assert file.size == 0 or file.path.read_text() == wanted
