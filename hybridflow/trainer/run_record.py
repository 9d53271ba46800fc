"""`run.json` of a run folder: by what a run was made, and how it ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hybridflow.errors import HybridFlowError
from hybridflow.observe.run_folder import RunFolder, now
from hybridflow.trainer.goodput import goodput
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.resume import versions

FORMAT = 1  # of the run folder as a whole: docs/run-folder.md
GIT_S = 5.0  # that git may take; a work tree on a slow disk is no reason to wait


@contextmanager
def kept(
    folder: RunFolder, name: str, source: Path | None, progress: Progress, learner: str, **facts: object
) -> Iterator[None]:
    """Keep `run.json` and the events of start and end, however the block ends.

    Args:
        source: the checkpoint that the run goes on from.
        progress: its state at the end is what is kept.
        facts: of the start, for its event.
    """
    record = begun(folder, name, source)
    folder.write_record(record)
    folder.event("start", step=progress.steps, resumed_from=record["resumed_from"], **facts)
    status, error = "ended", None
    try:
        yield
        error = progress.fault(learner)
    except BaseException as caught:
        status = "interrupted" if isinstance(caught, KeyboardInterrupt) else "failed"
        error = str(caught) or type(caught).__name__
        raise
    finally:
        with suppress(HybridFlowError, OSError):  # of a full disk, which the run has ended by
            folder.write_record({**record, "status": status, "ended": now(), "error": error, **outcome(progress)})
            folder.event("end", status=status, step=progress.steps, error=error)


def end_killed(folder: RunFolder) -> None:
    """Put down of the run before that it was killed, if its record never saw an end: this one has its lock now."""
    record = folder.record()
    if record.get("status") == "running":
        folder.write_record({**record, "status": "killed"})


def begun(folder: RunFolder, name: str, source: Path | None) -> dict[str, Any]:
    """Return the record of a run that begins. What was there of the same run before it was resumed is in `earlier`."""
    before = folder.record()
    known = before.pop("earlier", None)
    earlier = known if isinstance(known, list) else []
    return {
        "format": FORMAT,
        "name": name,
        "status": "running",
        "started": now(),
        "ended": None,
        "error": None,
        "steps": None,
        "seconds": None,
        "accuracy": {},
        "goodput": None,
        "spent": {},
        "command": sys.orig_argv,
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "resumed_from": None if source is None else str(source),
        "versions": versions(),
        "git": git_state(Path.cwd()),
        "earlier": [*earlier, *([before] if before else [])],
    }


def outcome(progress: Progress) -> dict[str, Any]:
    """Return what a run has come to, for its record."""
    return {
        "steps": progress.steps,
        "seconds": round(progress.seconds, 1),
        "accuracy": progress.accuracy,
        "goodput": round(goodput(progress.spent), 4) if progress.spent else None,
        "spent": {what: round(seconds, 1) for what, seconds in progress.spent.items()},
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a folder's work tree, and whether it has changes; None: there is no git, or no commit."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return {"commit": commit, "branch": branch, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # No file system monitor: it is a program that the work tree names.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
