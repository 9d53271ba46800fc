"""What does it take until a run's first rollout is there? `python -m benchmarks.startup --json startup.json`

Claims:

* `ratio`: `hybridflow train experiment=addition`, from the command to the rows of its first call that generates, takes
  at most 1.25 times as long as a program (`bare_start`) that starts Ray and, by the same ranks in parallel, the same
  engines, and answers the same prompts.
* `help_ratio` and `completion_ratio`: `hybridflow --help` and a completion take at most half as long as
  `python -c "import torch"`.
* `check_ratio`: all checks before a run of addition (`hybridflow train experiment=addition --check`) take at most twice
  as long as that.

Each is measured in turns with what it is compared with. A ratio is the median of those of the pairs, beside it the
least and the largest; those of processor seconds, of all processes together, have `cpu_` before their names: they tell
the same where others use the cores.

`phases` are what the log of the runs says: seconds of the controller (`driver`), and of its rank 0 (`rank`).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_start import PARTS, BareRun
from benchmarks.process_seconds import Seconds, TreeSeconds, seconds_of

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
COMMAND = f"{Path(PYTHON).parent}/hybridflow"
SETTINGS = ("experiment=addition", "trainer.steps=1", "trainer.timeline_every=1", "run.root=runs")
FIRST = "actor.generate_sequences"
LIMITS = {"ratio": 1.25, "help_ratio": 0.5, "completion_ratio": 0.5, "check_ratio": 2.0}
TIMED = re.compile(r" hybridflow\.\S+: (.+?) in (\d+\.\d\d) s")


def main() -> int:
    """Run the benchmark and write its JSON; return 0 if the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--pairs", type=int, default=5, help="starts of each kind, after one of warm-up")
    parser.add_argument("--questions", type=int, default=10, help="turns of the commands that start nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybridflow-startup-") as folder:
        result = measured(Path(folder), options.pairs, options.questions)
    result["pass"] = all(result[name] <= limit for name, limit in LIMITS.items() if name in result)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["pass"] else 1


def measured(folder: Path, pairs: int, questions: int) -> dict[str, Any]:
    """Take the turns of everything."""
    subprocess.run([COMMAND, "model", "addition", "--out", "models/addition"], cwd=folder, check=True)
    result = asked(folder, questions) if questions else {}
    return result | (started(folder, pairs) if pairs else {})


def asked(folder: Path, turns: int) -> dict[str, Any]:
    """Compare the commands that start nothing with an import of torch."""
    line = {"COMP_LINE": "hybridflow train experiment=addition actor.par", "COMP_POINT": "46"}
    commands: dict[str, tuple[list[str], Mapping[str, str]]] = {
        "torch": ([PYTHON, "-c", "import torch"], {}),
        "help": ([COMMAND, "--help"], {}),
        "completion": ([COMMAND, "-sc", "query=bash"], line),
        "check": ([COMMAND, "train", *settings(folder), "--check"], {}),
    }
    found: dict[str, list[Seconds]] = {name: [] for name in commands}
    for turn in range(1 + turns):
        for name in commands if turn % 2 else reversed(commands):
            command, more = commands[name]
            own = seconds_of(command, environment(more), folder)
            if turn:  # the first reads files from the disk
                found[name].append(own)
    torch = found.pop("torch")
    result: dict[str, Any] = {"import_torch_s": middle(torch)}
    for name, own in found.items():
        result |= {f"{name}_s": middle(own), **compared(f"{name}_ratio", own, torch)}
    return result


def started(folder: Path, pairs: int) -> dict[str, Any]:
    """Compare the start of a run with a bare one."""
    file = folder / "bare.pickle"
    file.write_bytes(pickle.dumps(bare_run(folder)))
    ours: list[Seconds] = []
    bare: list[Seconds] = []
    engines: list[Seconds] = []
    phases: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    for turn in range(1 + pairs):
        for one in ("ours", "bare") if turn % 2 else ("bare", "ours"):
            print(f"turn {turn}: {one}", file=sys.stderr, flush=True)
            if one == "ours":
                own, phase = first_rollout(folder, turn)
                ours.append(own)
                phases.append(phase)
            else:
                until = bare_parts(folder, file)
                bare.append(until["rows"])
                engines.append(until["generation"])
                parts.append(differences(until))
    measured = slice(1, None)
    return {
        **compared("ratio", ours[measured], bare[measured]),
        **compared("ratio_to_engines", ours[measured], engines[measured]),
        "first_rollout_s": middle(ours[measured]),
        "bare_first_rollout_s": middle(bare[measured]),
        "bare_engines_s": middle(engines[measured]),
        "phases": medians(phases[measured]),
        "bare_parts": medians(parts[measured]),
        "pairs": pairs,
    }


def bare_run(folder: Path) -> BareRun:
    """Return what the ranks of a bare start are told: the settings of the run, and the prompts of its first call."""
    from hybridflow import preflight
    from hybridflow.algorithms import algorithms
    from hybridflow.placement import resolve
    from hybridflow.trainer.chosen_rows import held_out_rows
    from hybridflow.trainer.task_rows import load_task

    config = preflight.load("train", settings(folder))
    algorithm = algorithms.get(config.algorithm.name)
    called = algorithm.roles_of(config.algorithm)
    updates = {role: algorithm.planned_updates(config.algorithm, role, config.trainer.steps) for role in called}
    placed = resolve(config, called, gpus=0, cpus=os.cpu_count(), updates=updates)
    with_engines = [role for role in placed.roles if role.engines.training]
    rows = held_out_rows(algorithm, load_task(config), config.trainer.validation_prompts)
    prompts = [ids.tolist() for ids in rows.ragged("prompt_ids")]
    return BareRun(config, with_engines, prompts, config.trainer.validation_temperature)


def first_rollout(folder: Path, turn: int) -> tuple[Seconds, dict[str, float]]:
    """Make a run of one step; return the seconds until its first rows were there, and those of its phases."""
    own = folder / f"runs/start-{turn}"
    command = [COMMAND, "train", *settings(folder), f"run.name={own.name}"]
    with subprocess.Popen(
        command, cwd=folder, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process, TreeSeconds(process.pid) as tree:  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{own.name} ended with {process.returncode}:\n{printed[-2000:]}")
    events = json.loads((own / "timeline.json").read_text())
    calls = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == FIRST]
    first = min(calls)
    end = max(end for begin, end in calls if begin < first[1])  # of the last of its ranks
    until = tree.until(end / 1e6)
    phases = {f"driver: {name}": s for name, s in timed(own / "logs/driver.log").items()}
    phases |= {f"rank: {name}": s for name, s in timed(own / "logs/main-0.log").items()}
    return until, {**phases, "first call": (first[1] - first[0]) / 1e6}


def timed(log: Path) -> dict[str, float]:
    """Return what a log says of the seconds that something took, by what; the first of each."""
    found: dict[str, float] = {}
    for what, seconds in TIMED.findall(log.read_text()):
        found.setdefault(what, float(seconds))
    return found


def bare_parts(folder: Path, file: Path) -> dict[str, Seconds]:
    """Start bare; return the seconds until the last rank had done each part."""
    Path(f"{file}.store").unlink(missing_ok=True)
    command = [PYTHON, "-m", "benchmarks.bare_start", str(file)]
    with subprocess.Popen(
        command, cwd=folder, env=environment({"WORLD": "2"}), stdout=subprocess.PIPE, text=True
    ) as process, TreeSeconds(process.pid) as tree:  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"bare_start ended with {process.returncode}:\n{printed[-2000:]}")
    moments = json.loads(printed.splitlines()[-1])
    return {part: tree.until(moment) for part, moment in moments.items()}


def settings(folder: Path) -> list[str]:
    """Return the overrides of the run."""
    return [*SETTINGS, f"actor.model.path={folder}/models/addition"]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of all programs."""
    from hybridflow.controller.cluster import ENVIRONMENT

    ours = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1"}
    return {**os.environ, **ENVIRONMENT, **ours, **more}


def compared(name: str, ours: Sequence[Seconds], theirs: Sequence[Seconds]) -> dict[str, Any]:
    """Return the median and the range of the pairs' ratios, of both kinds of seconds."""
    found: dict[str, Any] = {}
    for kind, prefix in (("wall", ""), ("cpu", "cpu_")):
        ratios = [getattr(a, kind) / getattr(b, kind) for a, b in zip(ours, theirs, strict=True)]
        found[f"{prefix}{name}"] = round(median(ratios), 3)
        found[f"{prefix}{name}_min_max"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return found


def middle(seconds: Sequence[Seconds]) -> dict[str, float]:
    """Return the medians of both kinds."""
    return {kind: round(median(getattr(one, kind) for one in seconds), 3) for kind in ("wall", "cpu")}


def differences(until: Mapping[str, Seconds]) -> dict[str, float]:
    """Return the wall seconds of each part of a bare start."""
    before = 0.0
    parts = {}
    for part in ("import ray", "ray.init", *PARTS):
        parts[part] = until[part].wall - before
        before = until[part].wall
    return parts


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each number."""
    return {name: round(median(run[name] for run in runs if name in run), 2) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
