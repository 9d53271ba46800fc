"""Timelines: what ranks did, as trace events."""

from __future__ import annotations

import errno
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.observe import timeline
from hybridflow.observe.timeline import CallSpan, Timeline
from tests.observe.trace_format import violations

EPOCH = 1_790_000_000.0


def untold(line: str) -> None:
    raise AssertionError(line)


def span(began: float, seconds: float = 1.0, *, pool: str = "train", rank: int = 0, step: int | None = 0) -> CallSpan:
    return CallSpan(pool, rank, "actor", "update_actor", step, EPOCH + began, seconds)


def events(file: Path, kind: str = "X") -> list[dict[str, Any]]:
    """Its events of a kind, by default calls."""
    return [event for event in json.loads(file.read_text()) if event["ph"] == kind]


def begun(file: Path) -> list[float]:
    """When its calls began."""
    return [event["ts"] / 1e6 - EPOCH for event in events(file) if event["cat"]]


def test_pools_are_processes_ranks_threads_and_steps_a_line_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    line = Timeline(file, 1, untold)
    line.begin_step(0, EPOCH)
    line.note(span(0.5, pool="train", rank=1))
    line.note(CallSpan("judges", 0, "critic", "compute_values", None, EPOCH + 0.25, 0.5))
    line.end_step(0, EPOCH, 2.0)
    names = {(one["name"], one["pid"], one["tid"]): one["args"]["name"] for one in events(file, "M")}
    assert list(names.values()) == ["controller", "steps", "pool judges", "rank 0", "pool train", "rank 1"]
    found = [(one["name"], one["dur"], one["pid"], one["tid"], one["args"]["step"]) for one in events(file)]
    assert found == [
        ("step 0", 2_000_000, 1, 0, 0),
        ("critic.compute_values", 500_000, 2, 0, None),
        ("actor.update_actor", 1_000_000, 3, 1, 0),
    ]
    assert not violations(file.read_text())


def test_what_runs_in_a_kept_step_is_kept_of_whatever_step_it_is(tmp_path: Path) -> None:
    """Steps of ten seconds, of which every third is kept; a validation comes before the first."""
    file = tmp_path / "timeline.json"
    line = Timeline(file, 3, untold)
    line.note(span(-5, step=None))
    for step in range(5):
        line.begin_step(step, EPOCH + 10 * step)
        line.note(span(10 * step - 2, 4, rank=1, step=step + 1))  # ahead, since the step before
        line.note(span(10 * step + 3, step=step))
        line.end_step(step, EPOCH + 10 * step, 9.0)
        line.note(span(10 * step + 9, step=None))
    line.write()
    assert begun(file) == [-5, -2, 3, 8, 9, 28, 33, 38, 39]
    assert [one["name"] for one in events(file) if not one["cat"]] == ["step 0", "step 3"]


def test_no_steps_no_file(tmp_path: Path) -> None:
    line = Timeline(tmp_path / "timeline.json", 0, untold)
    line.begin_step(0, EPOCH)
    line.note(span(1))
    line.end_step(0, EPOCH, 2.0)
    assert not [*tmp_path.iterdir()]


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    line = Timeline(file, 1, untold)
    with patch.object(timeline, "MAX_WAITING", 3):
        for second in range(4):
            line.note(span(second))
            assert file.exists() == (second >= 2)
    assert begun(file) == [0, 1, 2]


def test_a_disk_that_is_full_ends_the_timeline_and_leaves_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    said: list[str] = []
    line = Timeline(file, 1, said.append)
    line.note(span(0))
    line.write()
    whole = file.read_bytes()
    write_at = timeline._write_at

    def full(stream: Any, place: int, text: bytes) -> int:
        if len(text) > 1:
            stream.seek(place)
            stream.write(text[: len(text) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_at(stream, place, text)

    with patch.object(timeline, "_write_at", full):
        line.note(span(1))
        line.write()
    assert file.read_bytes() == whole
    line.note(span(2))
    line.write()
    assert said == [f"warning: No space left on device: {file}: the timeline ends here"] and begun(file) == [0]


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 4, 5, 60, 10_000])
def test_a_resumed_run_goes_on_with_it_wherever_it_was_killed(tmp_path: Path, lost: int) -> None:
    file = tmp_path / "timeline.json"
    for pool in ("train", "judges"):
        line = Timeline(file, 1, untold)
        line.note(span(0, pool=pool))
        line.note(span(1, pool=pool))
        line.write()
        if pool == "train":
            file.write_bytes(file.read_bytes()[: -lost or None])
    last = {2, 3, 4, 5, 60, 10_000} & {lost}
    assert len(begun(file)) == {0: 4, 1: 4, 2: 4, 3: 4, 4: 3, 5: 3, 60: 3, 10_000: 2}[lost], last
    pools = [one["args"]["pool"] for one in events(file, "M") if one["name"] == "process_name"]
    assert pools == (["", "train", "judges"] if lost < 10_000 else ["", "judges"])
    assert not violations(file.read_text())


def test_a_clock_that_was_set_back_makes_no_spans_overlap(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    line = Timeline(file, 1, untold)
    for began in (0, 0.75, 1.75):
        line.note(span(began))
    line.write()
    assert [(one["ts"] - EPOCH * 1e6, one["dur"]) for one in events(file)] == [(0, 1e6), (1e6, 750_000), (1.75e6, 1e6)]


CALLS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 * 10**6)), max_size=6)


@given(ranks=st.lists(CALLS, min_size=1, max_size=3), cut=st.integers(0, 18), order=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_spans_of_a_rank_never_overlap_and_none_is_lost(ranks: list[Any], cut: int, order: Any) -> None:
    """Calls of each rank, one after the other: a pause in seconds, and microseconds of work. Reports come in any order,
    some before a write and others after.
    """
    spans = []
    for rank, calls in enumerate(ranks):
        now = 0.0
        for pause, work in calls:
            spans.append(span(now + pause, work / 1e6, rank=rank))
            now = spans[-1].began + spans[-1].seconds - EPOCH
    order.shuffle(spans)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "timeline.json"
        line = Timeline(file, 1, untold)
        for part in (spans[:cut], spans[cut:]):
            for one in part:
                line.note(one)
            line.write()
        found = events(file) if file.exists() else []
        assert not file.exists() or not violations(file.read_text())
    assert len(found) == len(spans)
    by_rank = defaultdict(list)
    for event in found:
        by_rank[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for times in by_rank.values():
        assert all(last <= following for (_, last), (following, _) in pairwise(sorted(times)))
    assert sum(event["dur"] for event in found) == pytest.approx(
        1e6 * sum(one.seconds for one in spans), abs=5 * len(spans)
    )
