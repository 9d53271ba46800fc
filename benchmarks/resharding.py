"""What does a transition cost? `python -m benchmarks.resharding --json resharding.json`

Real ranks on gloo, Megatron's weights and vLLM's, float32. Each case is a model, a layout of training (t-p-d) and one
of generation (t_g-p_g). The ways to get from one to the other take turns; given are medians of the pairs' ratios:

* `bytes_ratio`: payload that ranks received, as an instrumented process group counts it, / the formula of HybridFlow's
  Table 2, as docs/resharding.md says; null where both are 0. `peak_bytes`: the most that a refit's buffers held.
* `time_vs_bare`: a transition / one all-gather a bucket of as many bytes, then one copy into vLLM's parameters, and
  vLLM's own packing of them.
* `speedup_vs_v`: HybridFlow-V's seconds / ours; `speedup_vs_dschat`: those of an all-gather in the whole world of all
  weights, each cut over all ranks, after which every rank takes its slice. `fewer_bytes_than`: of these two, those
  that move more by the formulas; `least_speedup` is over all such cases.
* `time_vs_reload`: ours / gathering full tensors in each training replica, in buckets as large and as early as ours,
  and vLLM's `reload_weights` of them.

At the top level they are of the largest case. `plan_s`: seconds to plan for 1,024 ranks of Llama 70B, with the digest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any, NamedTuple

from rich.progress import Progress

from benchmarks import transition
from benchmarks.models import LLAMA_70B, SMOLLM2_135M, random_model
from benchmarks.pairs import pairwise
from hybridflow.models import ModelShape, read_shape, table
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.plan import make_plan
from hybridflow.tasks.tokenizer import char_tokenizer
from tests.resharding.plan.simulate import shardings
from tests.spmd import Ranks

LLAMA = dict(num_attention_heads=8, num_key_value_heads=4)
SHAPES: dict[str, dict[str, Any]] = {
    "llama_20m": dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, **LLAMA),
    "llama_130m": dict(vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, **LLAMA),
    "smollm2_135m": SMOLLM2_135M,
}
POSITIONS = 256
RATIOS = ("time_vs_bare", "speedup_vs_v", "speedup_vs_dschat", "time_vs_reload")


class Case(NamedTuple):
    """A model and its layout."""

    model: str
    layout: Layout

    @property
    def name(self) -> str:
        """As `--cases` takes it."""
        return f"{self.model}:{self.train}:{self.generate}"

    @property
    def train(self) -> str:
        """t-p-d."""
        return f"{self.layout.tensor}-{self.layout.pipeline}-{self.layout.data}"

    @property
    def generate(self) -> str:
        """t_g-p_g."""
        return "{}-{}".format(*self.layout.generation_sizes)


def _case(model: str, training: tuple[int, int, int], generation: tuple[int, int]) -> Case:
    return Case(model, Layout(*training, generation=generation))


CASES = [
    _case("llama_20m", (2, 1, 1), (1, 1)),
    _case("llama_20m", (1, 2, 1), (1, 1)),
    _case("llama_20m", (2, 1, 1), (2, 1)),
    _case("smollm2_135m", (1, 2, 1), (1, 1)),
    _case("smollm2_135m", (1, 2, 1), (1, 2)),
    _case("llama_130m", (2, 1, 1), (1, 1)),
    _case("llama_20m", (2, 1, 2), (1, 1)),
    _case("llama_20m", (2, 2, 1), (2, 1)),
    _case("llama_20m", (4, 1, 1), (2, 1)),
    _case("llama_130m", (4, 1, 1), (2, 1)),
]


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result, after each case")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way, after one of warm-up")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="MODEL:T-P-D:TG-PG")
    options = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "rounds": options.rounds, "plan_s": plan_seconds(), "cases": []}
    wanted = [case for case in CASES if case.name in options.cases]
    with tempfile.TemporaryDirectory() as root, Progress() as progress:
        bar = progress.add_task("cases", total=len(wanted))
        for world, cases in groupby(wanted, lambda case: case.layout.size):
            with ranks_of(world) as ranks:
                for case in cases:
                    folder = model_of(Path(root) / case.model, SHAPES[case.model])
                    result["cases"].append(measured(case, folder, ranks, options.rounds))
                    progress.print(f"{case.name}: {brief(result['cases'][-1])}", soft_wrap=True)
                    progress.advance(bar)
                    if options.json:
                        options.json.write_text(json.dumps(summary(result), indent=1) + "\n")
    print(json.dumps(summary(result), indent=1))


@contextmanager
def ranks_of(world: int) -> Iterator[Ranks]:
    """Start processes, ended on leaving."""
    ranks = Ranks(world)
    try:
        yield ranks
    finally:
        ranks.stop()


def model_of(folder: Path, sizes: dict[str, Any]) -> Path:
    """Return a folder for both engines; made once."""
    if not folder.exists():
        random_model(folder, sizes, POSITIONS)
        char_tokenizer("0123456789", max_tokens=POSITIONS).save_pretrained(folder)
    return folder


def measured(case: Case, folder: Path, ranks: Ranks, rounds: int) -> dict[str, Any]:
    """One case, on all its ranks."""
    found = ranks.run(transition.measure, folder, case.layout, rounds, timeout_s=600)
    seconds: dict[str, list[float]] = {
        way: [max(turns) for turns in zip(*(one["seconds"][way] for one in found), strict=True)]
        for way in found[0]["seconds"]
    }
    shape = read_shape(folder)
    formula = received_by_formula(shape, case.layout)
    received = mean(one["received"] - one["apart"] for one in found)
    return {
        "model": case.model,
        "parameters": sum(math.prod(weight.shape) for weight in table(shape)),
        "train": case.train,
        "generate": case.generate,
        "bytes_ratio": ratio_or_none(received, formula["hybrid"]),
        "received_bytes": [one["received"] for one in found],
        "peak_bytes": max(one["peak"] for one in found),
        "seconds": round(median(seconds["ours"]), 4),
        "seconds_of_others": {way: round(median(taken), 4) for way, taken in seconds.items() if way != "ours"},
        "time_vs_bare": pairwise(seconds["ours"], seconds["bare"]),
        "speedup_vs_v": pairwise(seconds["hybrid_v"], seconds["ours"]),
        "speedup_vs_dschat": pairwise(seconds["ds_chat"], seconds["ours"]),
        "time_vs_reload": pairwise(seconds["ours"], seconds["reload"]),
        "fewer_bytes_than": [name for name in ("v", "dschat") if formula["hybrid"] < formula[name]],
    }


def received_by_formula(shape: ModelShape, layout: Layout) -> dict[str, float]:
    """Table 2 of HybridFlow (arXiv 2409.19256), in bytes, of what tensor parallelism cuts."""
    model = transition.DTYPE.itemsize * sum(math.prod(w.shape) for w in table(shape) if w.axis is not None)
    replica, generation = layout.tensor * layout.pipeline, math.prod(layout.generation_sizes)
    return {
        "hybrid": model * (replica - generation) / (generation * replica),
        "v": model * (replica - 1) / replica,
        "dschat": model * (layout.size - 1) / layout.size,
    }


def ratio_or_none(seen: float, formula: float) -> float | None:
    """None if nothing was to move and nothing did; infinite if something did."""
    if formula:
        return round(seen / formula, 6)
    return math.inf if seen else None


def plan_seconds() -> float:
    """Of the slowest of three plans with their digests."""

    def once() -> float:
        begin = perf_counter()
        layout = Layout(8, 8, 16, (4, 1))
        assert make_plan(shardings(LLAMA_70B, layout), layout, itemsize=2, bucket_bytes=64 * 2**20).digest
        return perf_counter() - begin

    return round(max(once() for _ in range(3)), 3)


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Add the ratios of its largest case to a result, and the least speedup wherever the formulas say fewer bytes."""
    largest = max(result["cases"], key=size)
    speedups = {
        name: [case[f"speedup_vs_{name}"] for case in result["cases"] if name in case["fewer_bytes_than"]]
        for name in ("v", "dschat")
    }
    return {
        **{name: largest[name] for name in RATIOS},
        "largest": {name: largest[name] for name in ("model", "train", "generate")},
        "least_speedup": {name: min(found, default=None) for name, found in speedups.items()},
        **result,
    }


def brief(case: dict[str, Any]) -> str:
    """Describe what a case gave, in a line."""
    return ", ".join(f"{name} {case[name]}" for name in ("bytes_ratio", "seconds", *RATIOS))


def size(case: dict[str, Any]) -> tuple[int, int]:
    """Ranks, then parameters."""
    return math.prod(map(int, case["train"].split("-"))), case["parameters"]


if __name__ == "__main__":
    main()
