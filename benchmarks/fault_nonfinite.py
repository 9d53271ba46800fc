"""Rows of `benchmarks.faults`: a NaN in the gradient of one rank.

The update is skipped on all ranks alike and counted, and it makes no difference on which rank it was; after so many in
a row the run ends, with the rows of that step saved.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from benchmarks.fault_checkpoints import saved
from benchmarks.fault_graders import metrics, prompts
from benchmarks.fault_nonfinite_plugin import NONFINITE
from benchmarks.fault_plugin import MARK
from benchmarks.fault_runs import Ended, Result, Row, Runs, run_name, seconds_between, weights
from benchmarks.fault_series import Series, again

SETTINGS = (
    "plugins=[benchmarks.fault_plugin,benchmarks.fault_nonfinite_plugin]",
    "actor.parallel.tensor=1",
)
IN_A_ROW = "NaN in the gradients of rank 1, twice in a row: max_nonfinite_updates=2"


def row_name(rank: int) -> str:
    """Name a row."""
    return f"NaN in the gradient of rank {rank}, of two that have the same weights"


def made(runs: Runs, name: str, updates: str, *more: str) -> Ended:
    """Make a run with a NaN in these updates."""
    environment = {NONFINITE: updates, MARK: str(runs.place / f"{run_name(name)}.mark")}
    return again(runs, run_name(name), (*SETTINGS, *more), environment)


def skip(runs: Runs) -> dict[str, Result]:
    """Let each rank in turn have a NaN in the actor's third update."""
    undisturbed = runs.undisturbed("colocated", SETTINGS)
    both = [made(runs, row_name(rank), f"{rank}:2:2") for rank in (0, 1)]
    results = {}
    for rank, ended in enumerate(both):
        lost, twice = prompts(undisturbed) - prompts(ended), prompts(ended) - prompts(undisturbed)
        skipped = sum(line["actor/nonfinite_updates"] for line in metrics(ended))
        hashes = {Path(f"{runs.place / run_name(row_name(rank))}.mark.weights-{one}").read_text() for one in (0, 1)}
        equal = weights(both[0]) == weights(both[1]) != b""
        results[row_name(rank)] = {
            "pass": ended.status == 0
            and skipped == 1
            and len(hashes) == 1
            and equal
            and weights(ended) != weights(undisturbed)
            and not (lost or twice)
            and len(saved(ended.folder)) > 0,
            "status": ended.status,
            "rows_lost": lost.total(),
            "rows_twice": twice.total(),
            "weights_equal": equal and len(hashes) == 1,
            "told": f"actor/nonfinite_updates counts {skipped:.0f}",
        }
    return results


def end(runs: Runs) -> Result:
    """Let every update from the second on have a NaN."""
    ended = made(runs, IN_A_ROW, "1:1:99", "trainer.max_nonfinite_updates=2")
    files = list((ended.folder / "nonfinite").glob("*.safetensors"))
    columns: list[str] = []
    if files:
        with safe_open(files[0], framework="np") as file:
            columns = list(file.keys())
    told = ended.last
    said = "were not finite, on all ranks alike these were skipped" in told and bool(files) and str(files[0]) in told
    return {
        "pass": ended.status == 1 and said and {"response_ids", "advantages"} <= set(columns),
        "detect_s": seconds_between(ended.happened(), ended.first("were not finite, on all ranks")),
        "status": ended.status,
        "told": told,
    }


ROWS = (*Series([row_name(rank) for rank in (0, 1)], skip).rows(), Row(IN_A_ROW, end))
