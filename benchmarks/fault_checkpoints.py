"""Rows of `benchmarks.faults`: the driver, or a rank, is killed at each step of a checkpoint's commit.

The driver: one run that is killed at the first point, given the same command again, killed at the next one, and so on
to its end. Ranks: one run that goes on by itself after each. Each row looks at the checkpoints that are there then, and
at the next one that is made, beside those of a run to which nothing happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_plugin import MARK
from benchmarks.fault_runs import (
    WITHIN_S,
    Ended,
    Result,
    Runs,
    compared,
    is_whole,
    seconds_between,
)
from benchmarks.fault_save_plugin import SAVE_FAULT
from benchmarks.fault_series import Series, again
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints, Manifest, verify

PLUGINS = "plugins=[benchmarks.fault_plugin,benchmarks.fault_save_plugin]"
SETTINGS = (PLUGINS, "trainer.keep_best=accuracy", "trainer.validate_every=1", "trainer.max_failures=20")
ENDED = (-9, -25, 231)  # by SIGKILL, by SIGXFSZ; and so is whoever has forked it
KEEP_ALL = "trainer.keep_last=99"
Entries = Mapping[str, str]


@dataclass(frozen=True)
class Point:
    """A point of a save: what is told of it, its name in the plugin, how the process ends there.

    Attributes:
        commits: the checkpoint that is saved is whole by then.
        starts: the process gets there when it starts, as what the one before left is swept away.
    """

    words: str
    name: str
    how: str = "SIGKILL"
    commits: bool = False
    starts: bool = False


DRIVER = (
    Point("before its folder is made", "folder"),
    Point("while ranks write", "ranks write"),
    Point("in the middle of trainer.json", "trainer.json", "half-200"),
    Point("in the middle of config.yaml", "config.yaml", "half-2000"),
    Point("before the first fsync", "first flush"),
    Point("in the middle of manifest.json", "manifest.json", "half-1000"),
    Point("before the rename", "rename step"),
    Point("in the middle of sweeping away what a kill left", "half swept", starts=True),
    Point("after the rename", "name LATEST", commits=True),
    Point("in the middle of LATEST", "LATEST.tmp", "half-4", commits=True),
    Point("before LATEST's rename", "rename LATEST", commits=True),
    Point("in the middle of BEST", "BEST.tmp", "half-4", commits=True),
    Point("before an old one's rename", "rename .old", commits=True),
    Point("in the middle of an old one's removal", "half removed", commits=True),
)
RANKS = (
    Point("actor's rank 0 before its folder is made", "actor 0 make its folder"),
    Point("actor's rank 0 before common.pt", "actor 0 save what is common"),
    Point("actor's rank 0 in the middle of its tensors", "actor 0 tensors", "half-1000000"),
    Point("critic's rank 1 in the middle of its tensors", "critic 1 tensors", "half-500000"),
    Point("actor's rank 0 in the middle of the index", "actor 0 index", "half-9000"),
    Point("critic's rank 0 before metadata.json", "critic 0 save the format"),
    Point("actor's rank 1 in the middle of its random states", "actor 1 save the rest", "half-9000"),
    Point("actor's rank 0 in the middle of state.json", "actor 0 state", "half-40"),
)
DRIVER_STEPS = 2 + sum(point.commits for point in DRIVER)
RANK_STEPS = 2 + len(RANKS)


def tensors(folder: Path) -> Entries:
    """Return the hash of each of a checkpoint's files that ranks wrote, but for the index: it names its folder."""
    files = Manifest.read(folder).files
    return {name: entry.sha256 for name, entry in files.items() if "/" in name and not name.endswith(".metadata")}


def saved(folder: Path) -> dict[int, Entries]:
    """Verify a run's checkpoints; return what is in them, by step. Raises CheckpointError naming what is not whole."""
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in checkpoints.steps():
        verify(checkpoints.at(step))
    return {step: tensors(checkpoints.at(step)) for step in checkpoints.steps()}


def faults(mark: Path, *wanted: tuple[Point, int]) -> dict[str, str]:
    """Return the environment in which these happen, each in the save of a step."""
    text = ",".join(f"{point.name}:{step}:{point.how}" for point, step in wanted)
    return {SAVE_FAULT: text, MARK: str(mark)}


def driver_row(point: Point) -> str:
    """Name a row."""
    return f"checkpoint: driver killed {point.words}"


def rank_row(point: Point) -> str:
    """Name a row."""
    return f"checkpoint: {point.words}: killed"


def kill_drivers(runs: Runs) -> dict[str, Result]:
    """Kill a run's driver at each point in turn, and give the same command again each time."""
    settings = (*SETTINGS, f"trainer.steps={DRIVER_STEPS}")
    undisturbed = runs.undisturbed("colocated", (*settings, KEEP_ALL))
    wanted = saved(undisturbed.folder)
    results: dict[str, Result] = {}
    newest = 1
    for number, point in enumerate(DRIVER):
        mark = runs.place / f"killed-driver-{number}.mark"
        step = newest + 1
        ended = again(runs, "killed-driver", settings, faults(mark, (point, step)))
        results[driver_row(point)] = died(ended, mark, wanted, step if point.commits else newest)
        newest = step if point.commits else newest
        if number:
            resumed(results[driver_row(DRIVER[number - 1])], ended)
    ended = again(runs, "killed-driver", settings)
    resumed(results[driver_row(DRIVER[-1])], ended)
    return {name: finish(result, ended, undisturbed, wanted) for name, result in results.items()}


def died(ended: Ended, mark: Path, wanted: Mapping[int, Entries], newest: int) -> Result:
    """Judge a run that was to be killed, and what it left."""
    try:
        found = saved(ended.folder)
        left = max(found, default=0) == newest and all(wanted[step] == found[step] for step in found)
        told = "" if left else f"there are {sorted(found)}, {newest} expected as the newest, equal to the undisturbed"
    except CheckpointError as error:
        left, told = False, str(error)
    happened = Path(f"{mark}.0").exists()
    return {
        "pass": ended.status in ENDED and happened and left,
        "status": ended.status,
        "newest": newest,
        "told": told or ("" if happened else f"it did not happen: {ended.last}"),
    }


def resumed(result: Result, ended: Ended) -> None:
    """Judge how the next run of the same command went on."""
    told = ended.line("resuming from step ")
    result["told"] = result["told"] or told or ended.last
    result["pass"] = bool(result["pass"]) and told is not None and f"from step {result['newest']}:" in told


def finish(result: Result, ended: Ended, undisturbed: Ended, wanted: Mapping[int, Entries]) -> Result:
    """Judge what came of it in the end."""
    found = compared(ended, undisturbed)
    last = saved(ended.folder)
    whole = ended.status == 0 and is_whole(found) and all(wanted[step] == last[step] for step in last)
    return {**result, **found, "pass": bool(result["pass"]) and whole}


def kill_ranks(runs: Runs) -> dict[str, Result]:
    """Kill a rank at each point in turn, in one run that goes on after each."""
    settings = (*SETTINGS, f"trainer.steps={RANK_STEPS}")
    undisturbed = runs.undisturbed("colocated", (*settings, KEEP_ALL))
    wanted = saved(undisturbed.folder)
    mark = runs.place / "killed-ranks.mark"
    due = [(point, step) for step, point in enumerate(RANKS, 2)]
    ended = again(runs, "killed-ranks", (*settings, KEEP_ALL), faults(mark, *due))
    events = [json.loads(line) for line in (ended.folder / "events.jsonl").read_text().splitlines()]
    failures = [event for event in events if event["event"] == "failure"]
    found = saved(ended.folder)
    results = {}
    for number, (point, step) in enumerate(due):
        marked = Path(f"{mark}.{number}")
        at = float(marked.read_text()) if marked.exists() else None
        told = next(
            ((when, line) for when, line in ended.lines if at and when >= at and "goes on after:" in line), None
        )
        detect_s = seconds_between(at, told[0] if told else None)
        of_a_save = number < len(failures) and failures[number]["method"] == "save_checkpoint"
        result: Result = {
            "pass": detect_s is not None and detect_s <= WITHIN_S and of_a_save and found.get(step) == wanted[step],
            "detect_s": detect_s,
            "status": ended.status,
            "told": told[1] if told else ended.last,
        }
        results[rank_row(point)] = finish(result, ended, undisturbed, wanted)
    return results


DRIVERS = Series([driver_row(point) for point in DRIVER], kill_drivers)
KILLED_RANKS = Series([rank_row(point) for point in RANKS], kill_ranks)
ROWS = (*DRIVERS.rows(), *KILLED_RANKS.rows())
