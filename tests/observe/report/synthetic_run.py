"""A run folder as a run would have left it, written in a moment: for what reads run folders."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridflow.observe.run_records import RunRecords, read_records
from hybridflow.observe.timeline import CONTROLLER, CallSpan, TraceFile

BEGAN = 1_790_000_000.0  # of the first step, in seconds since the epoch
METRICS = (
    "reward/mean", "reward/std", "reward/max", "reward/min", "actor/kl", "actor/entropy", "actor/grad_norm", "actor/lr",
    "actor/pg_loss", "actor/ratio", "actor/clip_fraction", "actor/rollout_log_prob_diff_mean", "response_length/mean",
    "rollout/truncated_fraction", "perf/tokens_per_s", "perf/goodput", "timing_s/step", "timing_s/generate_sequences",
    "timing_s/compute_log_prob", "timing_s/compute_reward", "timing_s/update_actor", "timing_s/idle/main",
)  # fmt: skip
CONFIG = """\
run: {name: NAME, seed: 1}
actor: {optimizer: {lr: 1.0e-06}}
trainer: {steps: STEPS, metric_sinks: [jsonl, live]}
"""


def build_run(
    folder: Path,
    *,
    steps: int = 20,
    metrics: Sequence[str] = METRICS,
    rows_every: int = 5,
    responses: Sequence[str] = ("12", "13", "21", "12"),
    groups: int = 2,
    tokens: int = 0,
    pools: Sequence[str] = ("main",),
    events: Iterable[Mapping[str, Any]] = (),
    seed: int = 0,
    config: str = CONFIG,
) -> Path:
    """Write a run folder: `steps` steps with `metrics`, and rows and a timeline of each `rows_every`-th.

    Args:
        responses: of each group.
        tokens: of each response that have values, in the first group of a step; 0: none.
        events: beside those of the start and the end.
    """
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    text = config.replace("NAME", folder.name).replace("STEPS", str(steps))
    (folder / "config.yaml").write_text(text)
    lines = [{"step": step, **{name: _value(name, step, steps, chance) for name in metrics}} for step in range(steps)]
    for step in (0, steps):
        accuracy = {"step": step, "validation/accuracy": 0.25 + 0.5 * step / max(1, steps)}
        lines.insert(step + (step > 0), accuracy)
    _write_lines(folder / "metrics.jsonl", lines)
    _write_lines(folder / "events.jsonl", [_event("start", 0), *events, _event("end", steps, status="ended")])
    record = {
        "format": 1, "name": folder.name, "status": "ended", "started": "2026-11-30T10:00:00+00:00", "error": None,
        "ended": "2026-11-30T11:00:00+00:00",
        "steps": steps, "seconds": 3600.0, "accuracy": {"0": 0.25}, "goodput": 0.8,
        "spent": {"start": 20.0, "steps": 80.0}, "command": ["hybridflow", "train", f"run.name={folder.name}"],
        "folder": "/home/someone", "host": "here", "versions": {"python": "3.11.7", "hybridflow": "0.1.0"},
        "git": {"commit": "0123456789abcdef", "branch": "main", "dirty": True}, "earlier": [],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "rollouts").mkdir()
    rows = [
        row
        for step in range(0, steps, rows_every)
        for group in range(groups)
        for row in _rows(step, group, responses, tokens if group == 0 else 0, chance)
    ]
    _write_lines(folder / "rollouts/rank0.jsonl", rows)
    TraceFile(folder / "timeline.json").add(_spans(range(0, steps, rows_every), pools))
    return folder


def built(folder: Path, **settings: Any) -> RunRecords:
    """Build a run and read it."""
    return read_records(build_run(folder, **settings))


def _value(name: str, step: int, steps: int, chance: random.Random) -> float:
    if name == "timing_s/step":
        return 1.0 + 0.2 * chance.random()
    if name.startswith("timing_s/"):
        return 0.2 * chance.random()
    return math.tanh(3 * step / steps) + 0.1 * chance.gauss(0, 1)


def _event(event: str, step: int, **facts: Any) -> dict[str, Any]:
    return {"time": "2026-11-30T10:00:00+00:00", "event": event, "step": step, **facts}


def _rows(
    step: int, group: int, responses: Sequence[str], tokens: int, chance: random.Random
) -> Iterable[dict[str, Any]]:
    for copy, response in enumerate(responses):
        row = {
            "step": step, "prompt": f"{step}+{group}=", "response": response, "answer": "12", "rewards": copy % 2 / 1.0,
            "sample_id": 7, "group_id": group, "weight_version": step, "finish_reason": "end", "truncated": False,
        }  # fmt: skip
        if tokens:
            values = {name: [chance.gauss(0, 1) for _ in range(tokens)] for name in ("advantages", "rollout_log_probs")}
            values["old_log_probs"] = [value + 0.01 for value in values["rollout_log_probs"]]
            row["by_token"] = {
                "text": [(response or " ")[place % max(1, len(response))] for place in range(tokens)],
                **values,
            }
        yield row


def _spans(steps: Iterable[int], pools: Sequence[str]) -> Iterable[CallSpan]:
    for step in steps:
        began = BEGAN + 2.0 * step
        yield CallSpan(CONTROLLER, 0, "", f"step {step}", step, began, 1.1)
        for pool in pools:
            for rank in range(2):
                yield CallSpan(pool, rank, "rollout", "generate_sequences", step, began + 0.01, 0.4)
                yield CallSpan(pool, rank, "actor", "update_actor", step, began + 0.5, 0.5)


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
