"""The table that a sweep ends with: of each job what it changed, how it ended, its accuracy and its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridflow.observe import terminal
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.terminal import cell


@dataclass(frozen=True)
class Job:
    """Job of a sweep that was carried out.

    Attributes:
        status: its exit status.
    """

    overrides: Sequence[str]
    status: int
    folder: Path


def show(jobs: Sequence[Job]) -> None:
    """Print the table, in the order in which the jobs ran."""
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "settings", "outcome", "steps", "accuracy", title="sweep", title_justify="left")
    table.add_column("folder", overflow="fold")
    for row in rows(jobs):
        table.add_row(*map(cell, row))
    terminal.draw(Console(highlight=False, soft_wrap=True), table)


def rows(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return the cells of each job. Settings that all jobs have in common are left out."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if jobs else set()
    cells: list[tuple[str, ...]] = []
    for number, job in enumerate(jobs):
        own = " ".join(override for override in job.overrides if override not in common)
        cells.append((str(number), own, *_ending(job), str(job.folder)))
    return cells


def _ending(job: Job) -> tuple[str, str, str]:
    """Return how a job ended, its steps and its last accuracy, by the record of its run."""
    record = RunFolder(job.folder).record()
    if record.get("process") != os.getpid():  # it never began, and the record is an earlier run's
        record = {}
    outcome = "done" if not job.status else f"failed ({'not started' if not record else job.status})"
    accuracy = record.get("accuracy")
    last = list(accuracy.values())[-1] if isinstance(accuracy, dict) and accuracy else None
    steps = record.get("steps")
    return outcome, "" if steps is None else str(steps), f"{last:.3f}" if isinstance(last, int | float) else ""
