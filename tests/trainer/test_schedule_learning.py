"""What each schedule has learned after as many rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.schedule_learning import SCHEDULES, learned
from benchmarks.short_runs import ShortRuns

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_every_schedule_learns_to_add_as_sync_does(place: Path, forks: dict[str, str]) -> None:
    """Means over three seeds, each from one warm start; the runs have a folder of their own beside the model's."""
    rows = learned(ShortRuns(place, forks, "schedules"), [*SCHEDULES], seeds=(1, 2, 3))
    assert [row["schedule"] for row in rows if not row["within"]] == [], rows
    assert rows[0]["gained"], "else there was nothing to learn"
    over_updates = {row["schedule"]: row["over_updates"] for row in rows}
    assert over_updates["async_partial"] > 0.1, "else hardly a row went on over an update, and this shows nothing of it"
