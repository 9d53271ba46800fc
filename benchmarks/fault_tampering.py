"""Rows of `benchmarks.faults`: a file of a checkpoint is not what was written. The run says so, and starts nothing.

A finished run is given the same command again, with `--check`, after one of its newest checkpoint's files was changed,
which is then put back. At last the newest one is removed, as the message says: the run goes on from the one before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_checkpoints import saved
from benchmarks.fault_runs import Result, Runs, compared, is_whole
from benchmarks.fault_series import Series, again

SETTINGS = ("trainer.keep_last=2",)
REMOVED = "tampering: newest checkpoint removed, as the message says"


def flip(file: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Leave the first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def from_before(file: Path) -> None:
    """Put the same file of the checkpoint before in its place."""
    newest = next(folder for folder in file.parents if folder.name.startswith("step-"))
    older = sorted(newest.parent.glob("step-*"))[-2]
    shutil.copyfile(older / file.relative_to(newest), file)


@dataclass(frozen=True)
class Change:
    """A change to one file of a checkpoint.

    Attributes:
        says: words that the message must have beside the checkpoint's folder.
    """

    words: str
    file: str
    act: Callable[[Path], None]
    says: str = ""
    goes_on: bool = False

    @property
    def row(self) -> str:
        """Name of its row."""
        return f"tampering: {self.words} {self.file}"


FILES = (
    "config.yaml", "trainer.json", "actor/state.json", "actor/rng-00001.safetensors", "actor/tensors/.metadata",
    "actor/tensors/__0_0.distcp", "actor/tensors/__1_0.distcp", "actor/tensors/common.pt",
    "actor/tensors/metadata.json", "critic/tensors/__1_0.distcp",
)  # fmt: skip
SHARD = "actor/tensors/__1_0.distcp"
CHANGES = (
    *(Change("flipped bit in", file, flip, f"{file} is not what was written") for file in FILES),
    Change("flipped bit in", "manifest.json", flip),
    Change("truncated", SHARD, truncate, f"{SHARD} has "),
    Change("removed", SHARD, Path.unlink, f"{SHARD} is missing"),
    Change("from the step before", SHARD, from_before, f"{SHARD} is not what was written"),
    Change("truncated", "manifest.json", truncate, "its manifest.json cannot be read"),
    Change("removed", "manifest.json", Path.unlink, "its manifest.json cannot be read"),
    Change("from the step before", "manifest.json", from_before, "its manifest.json cannot be read"),
    Change("removed", "../LATEST", Path.unlink, goes_on=True),
    Change("truncated", "../LATEST", truncate, goes_on=True),
)


def tamper(runs: Runs) -> dict[str, Result]:
    """Make all rows on one finished run."""
    undisturbed = runs.undisturbed("colocated")
    folder = runs.place / "runs/tampered"
    shutil.copytree(undisturbed.folder, folder)
    newest = folder / f"checkpoints/step-{max(saved(folder)):06d}"
    results = {change.row: _judged(change, newest, runs) for change in CHANGES}
    shutil.rmtree(newest)
    shutil.rmtree(folder / "model")
    ended = again(runs, "tampered", SETTINGS)
    told = ended.line("resuming from step ")
    found = compared(ended, undisturbed)
    went_on = ended.status == 0 and told is not None and "from step 3:" in told and is_whole(found)
    results[REMOVED] = {"pass": went_on, "status": ended.status, **found, "told": told or ended.last}
    return results


def _judged(change: Change, newest: Path, runs: Runs) -> Result:
    """Make one change, ask the run whether it would go on, and put things back."""
    file = newest / change.file
    with ExitStack() as stack:
        stack.callback(file.write_bytes, file.read_bytes())
        change.act(file)
        ended = again(runs, "tampered", (*SETTINGS, "--check"))
    if change.goes_on:
        passed = ended.status == 0 and ended.line(f"resuming from step {int(newest.name[5:])}:") is not None
    else:
        one_line = not any("Traceback" in line for _, line in ended.lines)
        passed = ended.status == 2 and one_line and str(newest) in ended.last and change.says in ended.last
    return {"pass": passed, "status": ended.status, "told": ended.last}


ROWS = Series([*(change.row for change in CHANGES), REMOVED], tamper).rows()
