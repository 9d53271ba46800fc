"""Record runs for alarms: `python -m benchmarks.alarm_records [healthy planted setting] [--only KIND/NAME …]`.

Each is a run of `hybridflow` by the command line, on a model that has learned a little addition, with its folder in
`--folder`; what is kept of it is `benchmarks/data/alarms/KIND/NAME.json`. A run whose file is there is left out, so
what was interrupted goes on. One takes a minute or two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.alarm_data import DATA, write
from benchmarks.alarm_plugin import PATHOLOGY
from benchmarks.alarm_runs import RUNS, AlarmRun
from benchmarks.learning import warm_start
from tests.forked_ranks import command, fork_server

ROOT = Path(__file__).parents[1]
KINDS = ("setting", "planted", "healthy")


def main() -> int:
    """Record what is missing; return 0 if all that was asked for is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], help="which to record; none named: all")
    parser.add_argument("--only", nargs="+", choices=RUNS, help="these runs")
    parser.add_argument("--folder", type=Path, default=Path("runs/alarms"), help="where the runs are")
    parser.add_argument("--list", action="store_true", help="say what is missing, and record nothing")
    options = parser.parse_args()
    asked = options.only or [key for key, run in RUNS.items() if run.kind in (options.kinds or KINDS)]
    missing = [key for key in asked if not (DATA / f"{key}.json").exists()]
    if options.list:
        print("\n".join(missing))
        return 0
    folder = options.folder.absolute()
    warm = warm_start(folder)
    with fork_server() as forks:
        failed = [key for key in missing if not record(folder, warm, RUNS[key], forks)]
    return 1 if failed else 0


def record(folder: Path, warm: Path, run: AlarmRun, forks: Mapping[str, str]) -> bool:
    """Make a run and keep its metrics; tell whether it made any. One that ends early, of what it has, is kept too.

    Args:
        warm: the model that has learned a little.
        forks: the environment in which processes are forked from one that has imported the engines.
    """
    place = (f"run.root={folder}", f"run.name={run.kind}_{run.name}", "trainer.resume=never")
    arguments = [*run.arguments(), *place, f"actor.model.path={_model(folder, warm, run)}"]
    begun = time.monotonic()
    status = hybridflow(folder, run, arguments, forks)
    file = folder / f"{run.kind}_{run.name}/metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    told = f"{run.kind}/{run.name}: {len(lines)} lines in {time.monotonic() - begun:.0f} s"
    print(told + (f", status {status}: see {folder}/log.txt" if status else ""), flush=True)
    if lines:
        before = f"{PATHOLOGY}={run.pathology} " if run.pathology else ""
        write(run.kind, run.name, f"{before}hybridflow {run.subcommand} {' '.join(run.arguments())}", lines)
    return bool(lines)


def _model(folder: Path, warm: Path, run: AlarmRun) -> Path:
    """Return what a run begins with: that which the warm start began with, for what is one itself."""
    return folder / "models/addition_2_layers" if run.subcommand == "sft" else warm


def hybridflow(folder: Path, run: AlarmRun, arguments: Sequence[str], forks: Mapping[str, str]) -> int:
    """Run a command to its end, a thread a process; what it printed goes to `folder/log.txt`. Return its status."""
    environment = {**os.environ, **forks, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {PATHOLOGY: run.pathology} if run.pathology else {}
    whole = command("-m", "hybridflow", run.subcommand, *arguments, environment=environment)
    with (folder / "log.txt").open("a") as log:
        return subprocess.run(whole, stdout=log, stderr=log, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
