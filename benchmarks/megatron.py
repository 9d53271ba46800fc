"""What the training engine makes of a CPU's cores. `python -m benchmarks.megatron --json megatron.json`

Claims, each on 64 ragged rows (log-normal lengths, mu 5, sigma 0.8, at most 512 tokens; half of a row is the prompt),
for a 20M Llama and the shape of SmolLM2-135M, in float32 and bfloat16:

* `train_ratio`: tokens/s of forward and backward / those of plain transformers with SDPA on random batches of 8 rows,
  padded, which is what a user would write. Both start from rows and end with gradients.
* `score_ratio`: the same for log-probs without gradients.
* `overhead`: seconds of our forward and backward / those of the same Megatron model called bare: tokens packed before
  the clock starts, cross entropy of the response tokens, `backward`.
* `sharing_ratio`: tokens/s of training on rows that are samples of prompts, 8 of each, which is 57 % of their tokens /
  those of the same rows where each is computed whole; `sharing_least`: the least of other samples and shares, in
  training and in scoring (`benchmarks.megatron_sharing`). `--only sharing` measures nothing else.

The three take turns in one process with the same threads, and medians over seeds of the pairwise ratios are given. On a
CPU without bfloat16 instructions all three get the same products (`parallel/bf16.py`), else transformers would wait for
torch's slow ones. Peak memory is the resident set of a process that loads the model and takes one pass, no more.
Cases that the JSON file has from a run with the same settings are not run again: remove the file to measure them anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import Progress

from benchmarks.megatron_sharing import SHARING, TYPICAL, Sharing, measure_sharing
from benchmarks.megatron_subjects import DTYPES, PADDED_ROWS, Bare, Ours, Plain
from benchmarks.models import SMOLLM2_135M, random_model
from benchmarks.pairs import pairwise
from hybridflow.batch import Batch, Ragged
from hybridflow.parallel.platform import platform

ROWS, LONGEST = 64, 512
SHAPES: dict[str, dict[str, Any]] = {
    "llama_20m": dict(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6,
    ),
    "smollm2_135m": SMOLLM2_135M,
}  # fmt: skip


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--only", choices=("cases", "sharing"), help="of the two kinds of rows one")
    parser.add_argument("--sharing", nargs="+", choices=SHARING, default=list(SHARING), metavar="CASE")
    parser.add_argument("--peak", nargs=3, metavar=("FOLDER", "DTYPE", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(*options.peak)))
        return
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "rows": ROWS, "seeds": options.seeds}
    found = earlier(options.json, result)
    wanted = [job for job in jobs(options) if job.name not in found[job.kind]]
    with tempfile.TemporaryDirectory() as root, Progress() as progress:
        start(root)
        bar = progress.add_task("cases", total=len(wanted) * options.seeds)
        for job in wanted:
            folder = random_model(Path(root) / job.shape, SHAPES[job.shape], LONGEST)
            case = found[job.kind][job.name] = job.measure(folder, options.seeds, lambda: progress.advance(bar))
            progress.print(f"{job.name}: {json.dumps(case)}")
            if options.json:
                options.json.write_text(json.dumps(result | found | worst(**found), indent=1) + "\n")
    print(json.dumps(result | found | worst(**found), indent=1))


class Job(NamedTuple):
    """Case to be measured: its key in the JSON and its name there; a shape, and what measures a folder of it."""

    kind: str
    name: str
    shape: str
    measure: Callable[[Path, int, Callable[[], None]], dict[str, Any]]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Yield what these options ask for."""
    for shape, dtype in product(options.shapes, options.dtypes):
        if options.only != "sharing":
            yield Job("cases", f"{shape} {dtype}", shape, partial(measure, dtype))
        for case in options.sharing if options.only != "cases" else ():
            yield Job("sharing", f"{shape} {dtype}, {case}", shape, partial(shared, dtype, SHARING[case]))


def shared(dtype: str, case: Sharing, folder: Path, seeds: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Measure rows that share prompts."""
    return measure_sharing(Ours(folder, dtype), case, seeds, advance)


def earlier(path: Path | None, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the cases that a stopped run with the same settings has left in `path`: a case takes up to an hour."""
    past: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}
    known = settings.items() <= past.items()
    return {kind: past.get(kind, {}) if known else {} for kind in ("cases", "sharing")}


def worst(cases: dict[str, Any], sharing: dict[str, Any]) -> dict[str, float]:
    """Return the least favorable case of each ratio; `sharing_ratio` is of 8 samples whose prompt is 57 %."""
    least: dict[str, float] = {}
    if cases:
        least = {name: min(case[name] for case in cases.values()) for name in ("train_ratio", "score_ratio")}
        least["overhead"] = max(case["overhead"] for case in cases.values())
    ratios = {name: min(case["train_ratio"], case["score_ratio"]) for name, case in sharing.items()}
    if ratios:
        least["sharing_least"] = min(ratios.values())
    typical = [case["train_ratio"] for name, case in sharing.items() if name.endswith(TYPICAL)]
    return least | ({"sharing_ratio": min(typical)} if typical else {})


def start(root: str) -> None:
    """Make a world of one rank."""
    platform().start(0)
    dist.init_process_group(platform().backend, init_method=f"file://{root}/meet", rank=0, world_size=1)


def ragged_rows(seed: int, vocab: int) -> Batch:
    """Prompts and responses of random tokens."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(5.0, 0.8, ROWS).astype(int), 4, LONGEST)
    prompts = Ragged.of([draw.integers(0, vocab, n // 2) for n in lengths])
    return Batch(prompt_ids=prompts, response_ids=Ragged.of([draw.integers(0, vocab, n - n // 2) for n in lengths]))


def measure(dtype: str, folder: Path, seeds: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Time the three in turn, a set of rows for each seed."""
    ours, plain = Ours(folder, dtype), Plain(folder, dtype)
    bare = Bare(ours)
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "bare", "plain", "ours_score", "plain_score")}
    counted = []
    for seed in range(-1, seeds):  # the first is a warm-up, and short
        rows = ragged_rows(seed + 1, ours.engine.shape.vocab).slice(0, ROWS if seed >= 0 else PADDED_ROWS)
        micros, tokens = ours.engine.pack(rows), int(rows.lengths("response_ids").sum())
        work: dict[str, Callable[[], None]] = {
            "ours": lambda rows=rows, seed=seed: ours.train(rows, seed),
            "bare": lambda micros=micros, tokens=tokens: bare.train(micros, tokens),
            "plain": lambda rows=rows, seed=seed: plain.train(rows, seed + 1),
            "ours_score": lambda rows=rows, seed=seed: ours.score(rows, seed),
            "plain_score": lambda rows=rows, seed=seed: plain.score(rows, seed + 1),
        }
        turns = {name: timed(work[name]) for name in (list(work) if seed % 2 else list(work)[::-1])}
        if seed >= 0:
            counted.append(int(rows.lengths("prompt_ids").sum()) + tokens)
            for name, taken in turns.items():
                seconds[name].append(taken)
            advance()
    return {
        "train_ratio": pairwise(seconds["plain"], seconds["ours"]),
        "score_ratio": pairwise(seconds["plain_score"], seconds["ours_score"]),
        "overhead": pairwise(seconds["ours"], seconds["bare"]),
        "tokens_per_s": {
            name: round(median(t / s for t, s in zip(counted, taken, strict=True))) for name, taken in seconds.items()
        },
        "peak_gib": {who: alone(folder, dtype, who) for who in ("ours", "plain")},
    }


def timed(work: Callable[[], None]) -> float:
    """Seconds."""
    platform().synchronize()
    begin = perf_counter()
    work()
    platform().synchronize()
    return perf_counter() - begin


def alone(folder: Path, dtype: str, who: str) -> float:
    """Peak memory of one of them in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.megatron", "--peak", str(folder), dtype, who]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak(folder: str, dtype: str, who: str) -> float:
    """GiB that this process holds at most: one of the two, loaded, and one forward and backward."""
    with tempfile.TemporaryDirectory() as root:
        start(root)
        subject: Any = Ours(Path(folder), dtype) if who == "ours" else Plain(Path(folder), dtype)
        vocab = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
        subject.train(ragged_rows(1, vocab), 1)
        return round(platform().memory_peak() / 2**30, 3)


if __name__ == "__main__":
    main()
