"""Rows of `benchmarks.faults`: what stands around a run fails it: its disk, its rows, its folder, its trackers, the
store that rows travel through.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.fault_endings import FAULT, LAYOUT
from benchmarks.fault_full_disk import small_disk
from benchmarks.fault_runs import (
    WITHIN_S,
    Ended,
    Result,
    Row,
    Runs,
    compared,
    is_whole,
    run_name,
    seconds_between,
)
from benchmarks.fault_save_plugin import fill
from benchmarks.fault_trackers import Tracker, tracker

PARTS = "plugins=[benchmarks.fault_plugin,benchmarks.fault_parts]"
SHADOWED = ("random", "queue", "secrets", "statistics", "torch", "numpy")
BESIDE = "beside_the_run"
TELLS_WHO_IMPORTS_IT = """
import os, pathlib
pathlib.Path(f"{__file__.removesuffix('.py')}.imported-{os.getpid()}").touch()
"""
STORE = (PARTS, "algorithm.name=ppo_with_ballast")
DISK_MIB = 64


def small_store(name: str, runs: Runs) -> Result:
    """Give a run a store that its rows do not fit into: it goes on, more slowly, and says so."""
    ended = runs.run(run_name(name), LAYOUT, more=(*STORE, "ray.object_store_gib=0.08"))
    found = compared(ended, runs.undisturbed(LAYOUT, STORE))
    told = ended.line("of rows that did not fit went to the disk")
    return {
        "pass": ended.status == 0 and is_whole(found) and told is not None and "ray.object_store_gib" in told,
        "status": ended.status,
        **found,
        "told": told or ended.last,
    }


def lost_tracker(name: str, fail: Callable[[Tracker], None], runs: Runs) -> Result:
    """Lose the server of a tracker: the run goes on as it would have, and says that it has lost it."""
    with tracker() as server:
        more = (
            PARTS, "trainer.metric_sinks=[jsonl,live,http]", f"+trainer.sink_options.http.url={server.url}",
        )  # fmt: skip
        with runs.started(run_name(name), LAYOUT, [FAULT], more) as running:
            at = running.wait_for_fault()
            fail(server)
            ended = running.end()
    found = compared(ended, runs.undisturbed(LAYOUT))
    told = ended.line("metric sink 'http'")
    return {
        "pass": ended.status == 0 and is_whole(found) and told is not None and server.taken > 0,
        "detect_s": seconds_between(at, ended.first("metric sink 'http'")),
        "ends_s": seconds_between(at, ended.at),
        "status": ended.status,
        **found,
        "told": told or ended.last,
    }


def shadowed_library(name: str, runs: Runs) -> Result:
    """Start a run in a folder whose modules have the names of others: it takes the real ones."""
    folder = runs.place / run_name(name)
    _link_warm_model(folder, runs)
    for module in SHADOWED:
        (folder / f"{module}.py").write_text(f'raise ImportError("{module}.py of the run\'s folder was taken")\n')
    (folder / f"{BESIDE}.py").write_text(TELLS_WHO_IMPORTS_IT)  # else nothing would show that this folder is searched
    program = (str(Path(sys.executable).parent / "hybridflow"),)
    more = (f"plugins=[benchmarks.fault_plugin,{BESIDE}]",)
    ended = runs.run(run_name(name), LAYOUT, more=more, folder=folder, program=program, forked=False)
    found = compared(ended, runs.undisturbed(LAYOUT))
    searched = len(list(folder.glob(f"{BESIDE}.imported-*")))  # by the driver and two ranks
    return {
        "pass": ended.status == 0 and is_whole(found) and searched >= 3,
        "searched": searched,
        "status": ended.status,
        **found,
        "told": ended.last,
    }


def full_disk(name: str, runs: Runs) -> Result:
    """Let the disk of a run's folder be full in mid-run: it ends with the disk's words, and goes on once there is
    room.
    """
    folder = runs.place / "runs" / run_name(name)
    with small_disk(folder, f"{DISK_MIB}m"):
        with runs.started(run_name(name), LAYOUT, [FAULT]) as running:
            at = running.wait_for_fault()
            fill(folder / "ballast", 0)
            ended = running.end(limit_s=90)
        (folder / "ballast").unlink()
        resumed = runs.run(run_name(name), LAYOUT)
        return _resumed(ended, resumed, runs.undisturbed(LAYOUT), at, "No space left on device: ")


def broken_line(name: str, runs: Runs) -> Result:
    """Give a run a file of rows with a line that only a later step would draw: it does not even start."""
    lines = _sums()
    lines[-3] = '{"question": "12+34=", "answer": '
    file = runs.place / "broken_rows.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    ended = runs.run(run_name(name), LAYOUT, more=_on_rows(file.name))
    said = f"{file.name}:{len(lines) - 2}"
    started = ended.first("starting")
    return {
        "pass": ended.status == 2 and said in ended.last and started is None,
        "status": ended.status,
        "told": ended.last,
    }


def changed_file(name: str, runs: Runs) -> Result:
    """Overwrite the file of rows in mid-run: the run ends with its line, and goes on once the rows are back."""
    file = runs.place / "rows.jsonl"
    text = "".join(f"{line}\n" for line in _sums())
    file.write_text(text)
    more = _on_rows(file.name)
    undisturbed = runs.undisturbed(LAYOUT, more)
    with runs.started(run_name(name), LAYOUT, [FAULT], more) as running:
        at = running.wait_for_fault()
        file.write_text("{ this is no row\n" * 800)
        ended = running.end(limit_s=90)
    file.write_text(text)
    resumed = runs.run(run_name(name), LAYOUT, more=more)
    return _resumed(ended, resumed, undisturbed, at, f"{file.name}:")


def broken_task(name: str, runs: Runs) -> Result:
    """Let a user's task meet a row in mid-run that has no answer: the run ends with the row, and what is wrong."""
    with runs.started(run_name(name), LAYOUT, [FAULT], (PARTS, "task.name=sums_of_a_server")) as running:
        at = running.wait_for_fault()
        ended = running.end(limit_s=90)
    detect_s = seconds_between(at, ended.at)
    told = "KeyError: 'answer'" in ended.last and "train" in ended.last and not ended.first("Traceback")
    return {
        "pass": ended.status == 1 and told and detect_s is not None and detect_s <= WITHIN_S,
        "detect_s": detect_s,
        "status": ended.status,
        "told": ended.last,
    }


def _resumed(ended: Ended, resumed: Ended, undisturbed: Ended, at: float, words: str) -> Result:
    """Judge a run that had to end with these words in its last line, and to go on after that."""
    found = compared(resumed, undisturbed)
    detect_s = seconds_between(at, ended.at)
    well = ended.status == 1 and words in ended.last and detect_s is not None and detect_s <= WITHIN_S
    return {
        "pass": well and resumed.status == 0 and is_whole(found) and resumed.first("resuming from step") is not None,
        "detect_s": detect_s,
        "status": ended.status,
        "resumed_status": resumed.status,
        **found,
        "told": ended.last,
    }


def _link_warm_model(folder: Path, runs: Runs) -> None:
    (folder / "runs").mkdir(parents=True)
    (folder / "runs/addition_warmup").symlink_to(runs.place / "runs/addition_warmup")


def _sums() -> list[str]:
    """List rows that the warm model knows, 800 of them."""
    return [
        json.dumps({"question": f"{a:02d}+{b:02d}=", "answer": f"{a + b:03d}"[::-1]})
        for a in range(40)
        for b in range(20)
    ]


def _on_rows(path: str) -> Sequence[str]:
    return ("task=rows", f"task.options.path={path}")


def _row(name: str, make: Callable[..., Result], *arguments: object) -> Row:
    return Row(name, partial(make, name, *arguments))


ROWS = (
    _row("object store too small", small_store),
    _row("a tracker's server refuses", lost_tracker, Tracker.refuse),
    _row("a tracker's server hangs", lost_tracker, Tracker.hang),
    _row("modules of the run's folder have the names of others", shadowed_library),
    _row("run folder on a full disk", full_disk),
    _row("rows: a broken line that a later step would draw", broken_line),
    _row("rows: the file is overwritten in mid-run", changed_file),
    _row("rows: a user's task meets a malformed one in mid-run", broken_task),
)
