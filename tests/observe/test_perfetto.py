"""`timeline.json` as Perfetto reads it: by its own importer, asked through its Python package.

That package drives `trace_processor_shell`, a program which it would download; here it is the one on the PATH.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

from hybridflow.observe.timeline import CallSpan, Timeline

SHELL = shutil.which("trace_processor_shell")

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        SHELL is None, reason="trace_processor_shell is not there: docs/run-folder.md says where it is from"
    ),
]

EPOCH = 1_790_000_000.0
CALLS = """
SELECT process.name AS pool, thread.name AS rank, slice.name AS call, slice.category AS role, slice.ts AS ts, slice.dur
  AS dur, slice.depth AS depth
FROM slice JOIN thread_track ON slice.track_id = thread_track.id JOIN thread USING (utid) JOIN process USING (upid)
"""
ERRORS = "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"


def spans_of_two_pools() -> list[CallSpan]:
    """Two steps of a schedule that works ahead: a pool generates for the next step while the other learns."""
    spans = [CallSpan("rollout", 0, "rollout", "generate_sequences", 0, EPOCH, 2.0)]
    for step in (0, 1):
        began = EPOCH + 2 + 3 * step
        spans += [CallSpan("train", rank, "actor", "update_actor", step, began, 2.5) for rank in range(12)]
        spans += [CallSpan("train", rank, "actor", "send_weights", step, began + 2.5, 0.25) for rank in range(12)]
        spans += [CallSpan("rollout", 0, "rollout", "generate_sequences", step + 1, began, 2.25)]
    return spans


def test_perfetto_shows_pools_ranks_and_calls(tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    spans = spans_of_two_pools()
    for process in (spans[:20], spans[20:]):  # a run that was resumed
        timeline = Timeline(file, 1, lambda line: pytest.fail(line))
        timeline.begin_step(0, EPOCH)
        for span in process:
            timeline.note(span)
        timeline.end_step(0, process[0].began, 0.5)
    with TraceProcessor(trace=str(file), config=TraceProcessorConfig(bin_path=SHELL)) as trace:
        found = [(row.pool, row.rank, row.call, row.role, row.ts, row.dur, row.depth) for row in trace.query(CALLS)]
        assert not [(row.name, row.value) for row in trace.query(ERRORS)]
    calls = [row for row in found if row[0] != "controller"]
    assert sorted(calls) == sorted(
        (
            f"pool {one.pool}",
            f"rank {one.rank}",
            one.name,
            one.role,
            int(one.began * 1e6) * 1000,
            int(one.seconds * 1e9),
            0,
        )
        for one in spans
    )
    assert [row[1:3] for row in found if row[0] == "controller"] == [("steps", "step 0")] * 2
