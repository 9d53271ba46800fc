"""Faults of whole runs: what is lost, how soon it is noticed, and whether the weights in the end are the same.

    python -m benchmarks.faults --json faults.json [--only NAME …]

Claim: a rank that is killed or stopped, in any phase of a step, colocated or with generation on a pool of its own,
costs at most that step's work; it is noticed within 10 seconds, no row is lost or trained on twice, and the final
weights are bit for bit those of an undisturbed run, which is made in the same benchmark. An exception ends the run with
its cause.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_plugin import FAULT, MARK
from hybridflow.cli import model
from tests.forked_ranks import fork_server

WITHIN_S = 10.0
SETTINGS = (
    "experiment=addition", "plugins=[benchmarks.fault_plugin]", "trainer.steps=4",
    "trainer.save_every=1", "trainer.log_rollouts_every=1", "trainer.validation_prompts=64",
    "trainer.stop_at_accuracy=null", "algorithm.prompts_per_step=32", "algorithm.critic_warmup_steps=0",
    "rollout.max_concurrent_rows=64",
)  # fmt: skip
WARM_UP = (
    "experiment=addition_warmup", "trainer.steps=110", "trainer.validate_every=0", "placement.pools.main=1",
    "actor.parallel.tensor=1",
)  # fmt: skip
LAYOUTS = {
    "colocated": ("placement.pools={main: 2}",),
    "disaggregated": ("placement=rollout_pool", "placement.pools={train: 2, rollout: 1}"),
}
# By layout and phase: the call in whose third making the fault happens, and on which rank.
PHASES = {
    "colocated": {
        "generate": ("actor.generate_sequences", 1),
        "score": ("actor.compute_log_prob", 1),
        "grade": ("reward.compute_reward", 1),
        "update": ("actor.update_actor", 1),
        "weight sync": ("actor.sync_weights", 1),
    },
    "disaggregated": {
        "generate": ("rollout.generate_sequences", 0),
        "score": ("actor.compute_log_prob", 1),
        "grade": ("reward.compute_reward", 1),
        "update": ("actor.update_actor", 1),
        "weight sync": ("rollout.receive_weights", 0),
    },
}


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its lines with the time of each, and its folder."""

    status: int
    lines: list[tuple[float, str]]
    folder: Path
    mark: Path

    def happened(self, number: int) -> float | None:
        """Return when the fault of that number happened; None: it did not."""
        file = Path(f"{self.mark}.{number}")
        return float(file.read_text()) if file.exists() else None

    def first(self, words: str) -> float | None:
        """Return when a line with these words first came."""
        return next((at for at, line in self.lines if words in line), None)


@dataclass(frozen=True)
class Fault:
    """Fault of one row."""

    layout: str
    name: str
    call: str
    rank: int
    how: str

    @property
    def at(self) -> str:
        """Say to the plugin when it happens."""
        return f"{self.call}:2:{self.rank}:{self.how}"

    @property
    def row(self) -> str:
        """Name of its row."""
        return f"{self.layout}: {self.how} in {self.name}"


def faults() -> Iterator[Fault]:
    """Yield every fault of this benchmark."""
    for layout, phases in PHASES.items():
        for name, (call, rank) in phases.items():
            yield Fault(layout, name, call, rank, "SIGKILL")
    yield Fault("colocated", "update", "actor.update_actor", 1, "SIGSTOP")
    yield Fault("disaggregated", "generate", "rollout.generate_sequences", 0, "SIGSTOP")
    yield Fault("colocated", "grade", "reward.compute_reward", 1, "raise")


def warm_up(place: Path, environment: dict[str, str]) -> None:
    """Train the model that the runs begin with, so that there is something to learn from."""
    assert model.run(["addition", "--out", str(place / "models/addition")]) == 0
    command = [sys.executable, "-m", "hybridflow", "sft", *WARM_UP]
    subprocess.run(command, cwd=place, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)


def run(
    place: Path,
    name: str,
    layout: str,
    environment: dict[str, str],
    faults: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Ended:
    """Make one run in which these faults happen; `more`: settings."""
    mark = place / f"{name}.mark"
    wanted = {FAULT: ",".join(faults), MARK: str(mark)} if faults else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridflow", "train", f"run.name={name}", *SETTINGS, *LAYOUTS[layout], *more],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment, **wanted},
    )  # fmt: skip
    lines: list[tuple[float, str]] = []
    assert process.stdout is not None
    reader = threading.Thread(
        target=lambda: lines.extend((time.time(), line.rstrip()) for line in process.stdout or ())
    )
    reader.start()
    try:
        status = process.wait(timeout=600)
    finally:
        process.kill()
        reader.join()
    return Ended(status, lines, place / "runs" / name, mark)


def rows(ended: Ended) -> Counter[str]:
    """Count the rows that a run has learned from, each with the rank that wrote it."""
    files = sorted((ended.folder / "rollouts").glob("*.jsonl"))
    return Counter(f"{file.name}: {line}" for file in files for line in file.read_text().splitlines())


def weights(ended: Ended) -> bytes:
    """Return the bytes of the trained model."""
    file = ended.folder / "model/model.safetensors"
    return file.read_bytes() if file.exists() else b""


def judged(fault: Fault, ended: Ended, undisturbed: Ended) -> dict[str, object]:
    """Return the row of a fault."""
    at = ended.happened(0)
    goes_on = fault.how != "raise"
    told = ended.first("that it goes on after:" if goes_on else "ZeroDivisionError: a fault that a benchmark asked for")
    again = ended.first("went on with step")
    detect_s = None if at is None or told is None else round(told - at, 2)
    lost, twice = rows(undisturbed) - rows(ended), rows(ended) - rows(undisturbed)
    equal = weights(ended) == weights(undisturbed) != b""
    noticed = detect_s is not None and detect_s <= WITHIN_S
    whole = ended.status == 0 and equal and not lost and not twice
    return {
        "row": fault.row,
        "pass": noticed and (whole if goes_on else ended.status == 1),
        "detect_s": detect_s,
        "recover_s": None if told is None or again is None else round(again - told, 2),
        "status": ended.status,
        "rows_lost": lost.total() if goes_on else None,
        "rows_twice": twice.total() if goes_on else None,
        "weights_equal": equal if goes_on else None,
        "told": next((line for _, line in ended.lines if "goes on after" in line), ended.lines[-1][1]),
        "where": next((line for _, line in ended.lines if line.startswith("new processes")), None),
    }


def main() -> int:
    """Make the runs; return 0 if every row passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", help="rows whose names contain one of these words")
    options = parser.parse_args()
    chosen = [fault for fault in faults() if not options.only or any(word in fault.row for word in options.only)]
    table = []
    with tempfile.TemporaryDirectory(prefix="hybridflow-faults-") as folder, fork_server() as forks:
        place = Path(folder)
        warm_up(place, forks)
        undisturbed = {layout: run(place, layout, layout, forks) for layout in dict.fromkeys(f.layout for f in chosen)}
        for name, ended in undisturbed.items():
            assert ended.status == 0 and ended.first("failure") is None, f"{name}: {ended.lines[-1:]}"
        for number, fault in enumerate(chosen):
            row = judged(
                fault, run(place, f"fault-{number}", fault.layout, forks, [fault.at]), undisturbed[fault.layout]
            )
            print(json.dumps(row), flush=True)
            table.append(row)
    if options.json:
        options.json.write_text(json.dumps({"rows": table}, indent=1) + "\n")
    return 0 if all(row["pass"] for row in table) else 1


if __name__ == "__main__":
    sys.exit(main())
