"""Rows of `benchmarks.faults`: the disk of the run folder takes no more, at each step of a checkpoint and beside it.

The folder is a small file system of its own (tmpfs), which is really filled at that point and has room again when the
save has ended; an fsync or a rename, which find no room on other file systems only, raise what these would. It takes
the right to mount: root's, or `unshare --map-root-user --mount python -m benchmarks.faults`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_checkpoints import KEEP_ALL, SETTINGS, Point, faults, saved
from benchmarks.fault_runs import Ended, Result, Row, Runs, compared, is_whole, run_name, seconds_between
from benchmarks.fault_save_plugin import FILLER
from benchmarks.fault_series import Series, again

GO_ON = "trainer.full_disk=go_on"
POINTS = (
    Point("rank 0 of the actor makes its folder", "actor 0 make its folder", "ENOSPC"),
    Point("common.pt", "actor 0 save what is common", "fill"),
    Point("rank 0 is in the middle of the actor's tensors", "actor 0 tensors", "fill-1000000"),
    Point("rank 1 is in the middle of the critic's tensors", "critic 1 tensors", "fill-500000"),
    Point("rank 0 has an input/output error in the actor's tensors", "actor 0 tensors", "EIO"),
    Point("the index of the tensors", "actor 0 index", "fill-8192"),
    Point("metadata.json", "critic 0 save the format", "fill"),
    Point("random states of rank 1", "actor 1 save the rest", "fill-4096"),
    Point("state.json", "actor 0 state", "fill"),
    Point("the checkpoint's folder", "folder", "EDQUOT"),
    Point("trainer.json", "trainer.json", "fill"),
    Point("config.yaml", "config.yaml", "fill"),
    Point("the first fsync", "first flush", "ENOSPC"),
    Point("manifest.json", "manifest.json", "fill"),
    Point("the rename", "rename step", "ENOSPC"),
    Point("LATEST", "LATEST.tmp", "fill", commits=True),
    Point("LATEST's rename", "rename LATEST", "ENOSPC", commits=True),
    Point("BEST", "BEST.tmp", "fill", commits=True),
    Point("an old one's rename", "rename .old", "ENOSPC", commits=True),
)
STEPS = 2 + len(POINTS)
SHORT = (*SETTINGS, "trainer.steps=4")
SIZE_MIB = 96


def row_name(point: Point) -> str:
    """Name a row."""
    return f"full disk: {point.words} ({point.how.partition('-')[0]})"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of that size as a folder. Raises CalledProcessError where nobody may."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True)
class FullDisk:
    """A run whose folder is a small file system.

    Attributes:
        run: its name.
    """

    runs: Runs
    run: str

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.runs.place / "runs" / self.run

    def start(self, settings: tuple[str, ...], *due: tuple[Point, int]) -> Ended:
        """Give its command, the first time or again; at each point the disk takes no more, in the step that is due."""
        mark = self.runs.place / f"{self.run}.mark"
        environment = {**faults(mark, *due), FILLER: str(self.folder / "filler")} if due else {}
        return again(self.runs, self.run, settings, environment)


@contextmanager
def full_disk(runs: Runs, run: str, size: str = f"{SIZE_MIB}m") -> Iterator[FullDisk]:
    """Give a run a file system of that size while in the block."""
    disk = FullDisk(runs, run)
    with small_disk(disk.folder, size):
        yield disk


def go_on(runs: Runs) -> dict[str, Result]:
    """Let one run go on after the disk was full at each point in turn."""
    settings = (*SETTINGS, f"trainer.steps={STEPS}", "trainer.keep_last=3")
    undisturbed = runs.undisturbed("colocated", (*settings, KEEP_ALL))
    due = [(point, step) for step, point in enumerate(POINTS, 2)]
    with full_disk(runs, "full-disk") as disk:
        folder = disk.folder
        ended = disk.start((*settings, GO_ON), *due)
        wanted, found = saved(undisturbed.folder), saved(folder)
        whole = {
            **compared(ended, undisturbed),
            "checkpoints_equal": all(wanted[step] == found[step] for step in found) and STEPS in found,
            "left": [path.name for path in (folder / "checkpoints").glob(".*")],
        }
    return {row_name(point): _judged(point, step, number, ended, whole) for number, (point, step) in enumerate(due)}


def _judged(point: Point, step: int, number: int, ended: Ended, whole: Result) -> Result:
    """Judge what was told of one save, and the run as a whole."""
    begins = f"warning: step {step} is {'saved, but' if point.commits else 'not saved:'} "
    told = ended.line(begins) or ""
    words = {"ENOSPC": "No space left on device", "EIO": "Input/output error", "EDQUOT": "Disk quota exceeded"}
    expected = begins + words.get(point.how, words["ENOSPC"]) + f": {ended.folder}/checkpoints"
    goes_on = ended.status == 0 and is_whole(whole) and whole["checkpoints_equal"] is True and not whole["left"]
    at = ended.happened(number)
    return {
        "pass": at is not None and told.startswith(expected) and goes_on,
        "detect_s": seconds_between(at, ended.first(begins)),
        "status": ended.status,
        **whole,
        "told": told or ended.last,
    }


def stop(name: str, runs: Runs) -> Result:
    """Let a run end, make room, and give the same command again."""
    undisturbed = runs.undisturbed("colocated", (*SHORT, KEEP_ALL))
    with full_disk(runs, run_name(name)) as disk:
        first = disk.start(SHORT, (Point("", "actor 1 tensors", "fill-1000000"), 3))
        found = saved(disk.folder)
        second = disk.start(SHORT)
        whole = compared(second, undisturbed)
    file = f"{disk.folder}/checkpoints/.tmp-step-000003/actor"
    said = first.last.startswith(f"hybridflow: No space left on device: {file}")
    return _resumed(first, second, 2, whole, "hybridflow: No space left", said and set(found) == {1, 2})


def _resumed(first: Ended, second: Ended, step: int, whole: Result, words: str, as_told: bool) -> Result:
    """Judge a run that ended with a line that has these words, and went on from a step when there was room."""
    resumed = second.line(f"resuming from step {step}:") is not None
    return {
        "pass": first.status == 1 and as_told and resumed and is_whole(whole),
        "detect_s": seconds_between(first.happened(), first.first(words)),
        "status": first.status,
        **whole,
        "told": first.last,
    }


def lines_wait(name: str, runs: Runs) -> Result:
    """Let a run go on while lines of metrics, and in another step rows, find no room."""
    settings = (*SHORT, "trainer.validate_every=0", "trainer.keep_best=''")
    undisturbed = runs.undisturbed("colocated", settings)
    with full_disk(runs, run_name(name)) as disk:
        due = (Point("", "metrics.jsonl", "fill"), 2), (Point("", "rank 1 rollouts", "fill"), 3)
        ended = disk.start((*settings, GO_ON), *due)
        whole = compared(ended, undisturbed)
        lines = [len((one / "metrics.jsonl").read_text().splitlines()) for one in (disk.folder, undisturbed.folder)]
    unwritten = ended.line("warning: step 2: ")
    written = unwritten is not None and f"step 2: {whole['rows_lost']} rows are not written" in unwritten
    waited = [ended.line(words) for words in ("lines of it wait in memory for room", "there is room again for")]
    complete = whole["weights_equal"] is True and not whole["rows_twice"] and lines[0] == lines[1]
    return {
        "pass": ended.status == 0 and written and complete and None not in waited,
        "status": ended.status,
        **whole,
        "rows_lost": 0 if written else whole["rows_lost"],
        "unwritten_rows": whole["rows_lost"],
        "told": unwritten or ended.last,
    }


def too_small(name: str, runs: Runs) -> Result:
    """Let a run go on whose disk has no room for a second checkpoint, ever."""
    undisturbed = runs.undisturbed("colocated", (*SHORT, KEEP_ALL))
    with full_disk(runs, run_name(name), "18m") as disk:
        ended = disk.start((*SHORT, GO_ON))
        whole = compared(ended, undisturbed)
        found = saved(ended.folder)
    told = ended.line("warning: step 2 is not saved: No space left on device: ")
    return {
        "pass": ended.status == 0 and is_whole(whole) and set(found) == {1} and told is not None,
        "status": ended.status,
        **whole,
        "told": told or ended.last,
    }


def model(name: str, runs: Runs) -> Result:
    """Let a run end whose trained model finds no room, make room, and give the same command again."""
    undisturbed = runs.undisturbed("colocated", (*SHORT, KEEP_ALL))
    with full_disk(runs, run_name(name)) as disk:
        first = disk.start((*SHORT, GO_ON), (Point("", "model 0", "fill-500000"), 0))
        left = (disk.folder / "model").exists()
        (disk.folder / "filler").unlink()
        second = disk.start(SHORT)
        whole = compared(second, undisturbed)
    said = "No space left on device: " in first.last and str(disk.folder / "model") in first.last
    return _resumed(first, second, 4, whole, "No space left", said and not left)


def _row(name: str, make: object) -> Row:
    return Row(name, lambda runs: make(name, runs))  # type: ignore[operator]


GOES_ON = Series([row_name(point) for point in POINTS], go_on)
ROWS = (
    *GOES_ON.rows(),
    _row("full disk: rank 1 writes tensors, full_disk=stop: ends, and the same command goes on", stop),
    _row("full disk: the trained model: ends, and the same command writes it", model),
    _row("full disk: metrics.jsonl, then rows, full_disk=go_on", lines_wait),
    _row("full disk: too small for two checkpoints, full_disk=go_on", too_small),
)
