"""GRPO here and in TRL, side by side: `python -m benchmarks.trl --json trl.json`.

Claim: `ratio` = response tokens a second, ours / TRL's, SmolLM2-135M-Instruct in bfloat16; `tiny_ratio`: of a random
model of 2 layers, 64 wide. Both take whole steps (sample, grade, score, update, log) on the same prompts, 4 a step with
8 samples each, with the KL to a reference in the loss, on 2 threads in all. Each is a process of its own that stays
from step to step; they take turns, and whoever has no turn waits. Medians are of the pairs' ratios.

Every response has 64 tokens on both sides: the end of a turn is never sampled (TRL) or not heeded (ours), so both learn
from as many, which is checked, as is that the prompts are the same. It is the kindest case for TRL, which pads.

TRL's configuration is chosen for speed on a CPU, and whole in the JSON. It samples with transformers (its vLLM mode is
for other versions, and gives weights in a way that fails on a CPU), and so needs no pass for old log-probs. In bfloat16
it gets our products (hybridflow/parallel/bf16.py), with which it is faster on a CPU without bfloat16 instructions. It
keeps no float32 master weights, we do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.trl_case import CASES, PROMPTS, ROWS, SAMPLES, THREADS, TOKENS

MODULES = {"ours": "benchmarks.trl_hybridflow", "trl": "benchmarks.trl_trainer"}
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--pairs", type=int, default=5, help="measured pairs of steps, after one of warm-up")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["smollm2", "tiny"])
    parser.add_argument("--ranks", type=int, choices=(1, THREADS), default=THREADS, help="of ours, with all threads")
    parser.add_argument("--trl-rows", type=int, help=f"rows of a pass of TRL's, a divisor of {ROWS}; else the case's")
    options = parser.parse_args()
    found: dict[str, Any] = {"sizes": {"prompts": PROMPTS, "samples": SAMPLES, "tokens": TOKENS, "threads": THREADS}}
    for name in options.cases:
        found[name] = measure(name, options.pairs, options.ranks, options.trl_rows or CASES[name].trl_rows)
        found["ratio" if name == "smollm2" else f"{name}_ratio"] = found[name]["ratio"]
        print(json.dumps({key: value for key, value in found[name].items() if key != "settings"}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(name: str, pairs: int, ranks: int, trl_rows: int) -> dict[str, Any]:
    """Take steps in turn, and compare those of a pair."""
    with tempfile.TemporaryDirectory(prefix="hybridflow-trl-") as folder:
        model = f"{folder}/model"
        CASES[name].make_model(model)
        sides = Side("ours", name, model, str(ranks)), Side("trl", name, model, str(trl_rows))
        with sides[0].started() as ours, sides[1].started() as theirs:
            taken = [_pair(ours, theirs, turn) for turn in range(1 + pairs)][1:]
            configured = {side.label: side.settings for side in (ours, theirs)}
    ratios = [_rate(pair["ours"]) / _rate(pair["trl"]) for pair in taken]
    return {
        "ratio": round(median(ratios), 3),
        "ratio_min_max": [round(min(ratios), 3), round(max(ratios), 3)],
        "pairs": pairs,
        "response_tokens_a_step": ROWS * TOKENS,
        **{label: _summary([pair[label] for pair in taken]) for label in configured},
        "settings": configured,
    }


class Side:
    """A process that takes a step when it is asked for one.

    Attributes:
        settings: its configuration, as it reports it.
    """

    def __init__(self, label: str, *arguments: str) -> None:
        self.label = label
        self._arguments = arguments
        self.settings: Any = None

    @contextmanager
    def started(self) -> Iterator[Side]:
        """Start the process, and end it after the block."""
        command = [sys.executable, "-m", MODULES[self.label], *self._arguments]
        # hybridflow gives its ranks a thread each, whatever this process has.
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
        with tempfile.TemporaryFile("w+") as log:
            self._log = log
            with subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            ) as self._process:
                try:
                    self.settings = self._answer()["settings"]
                    yield self
                finally:
                    assert self._process.stdin is not None
                    self._process.stdin.close()

    def step(self) -> dict[str, Any]:
        """Have it take a step. Raises RuntimeError with the end of its log if it fails."""
        assert self._process.stdin is not None
        print("step", file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            found: dict[str, Any] = json.loads(line)
            return found
        self._log.seek(0)
        raise RuntimeError(f"{MODULES[self.label]} ended with {self._process.wait()}:\n{self._log.read()[-3000:]}")


def _pair(ours: Side, theirs: Side, turn: int) -> dict[str, dict[str, Any]]:
    """Let both take a step, the one that went second last time first. Raises ValueError if the work differs."""
    order = (ours, theirs) if turn % 2 else (theirs, ours)
    found = {side.label: side.step() for side in order}
    for label, step in found.items():
        if step["response_tokens"] != ROWS * TOKENS:
            raise ValueError(f"{label}: {step['response_tokens']} response tokens, {ROWS * TOKENS} were expected")
    if found["ours"]["prompts"] != found["trl"]["prompts"]:
        raise ValueError(f"step {turn}: the two have other prompts")
    shown = ", ".join(f"{label} {step['seconds']:.2f} s" for label, step in found.items())
    print(f"step {turn}: {shown}", flush=True)
    return found


def _rate(step: dict[str, Any]) -> float:
    return float(step["response_tokens"] / step["seconds"])


def _summary(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return medians: tokens a second, seconds, and the share of each part in a step; the rest is `other`."""
    shares = {part: median(step["parts"][part] / step["seconds"] for step in steps) for part in steps[0]["parts"]}
    rest = median(1 - sum(step["parts"].values()) / step["seconds"] for step in steps)
    return {
        "response_tokens_per_s": round(median(map(_rate, steps)), 2),
        "step_s": round(median(step["seconds"] for step in steps), 3),
        "shares": {part: round(share, 3) for part, share in {**shares, "other": rest}.items()},
    }


if __name__ == "__main__":
    main()
