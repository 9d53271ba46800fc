"""Every ratio that the documentation quotes: which benchmark measures it, where its JSON has it, where it is quoted.

`benchmarks/baseline.json` has a value for each that was measured, and `python -m benchmarks.all_ratios` measures them
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Step = str | tuple[tuple[str, object], ...]
Key = tuple[Step, ...]
"""Way to a number in a benchmark's JSON: names, and of a list the entry that has these values."""


class Better(StrEnum):
    """Direction in which a ratio gets better."""

    less = "less"
    more = "more"


@dataclass(frozen=True)
class Benchmark:
    """Program that measures ratios.

    Attributes:
        module: below `benchmarks`; it takes `--json FILE`.
        arguments: of a whole measurement.
        fast: those of one that takes about a minute, and has some of the ratios; None: there is none.
    """

    module: str
    arguments: tuple[str, ...] = ()
    fast: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Ratio:
    """Number that the documentation quotes.

    Attributes:
        key: where the JSON of its benchmark has it.
        better: in which direction.
        page: that quotes it.
        line: words of the line that does, as `form` writes the number.
        fast: the benchmark's fast arguments measure it too.
    """

    benchmark: str
    key: Key
    better: Better
    page: str
    line: str
    form: str = "{:.2f}"
    fast: bool = False

    @property
    def name(self) -> str:
        """Return what it is called in the baseline: the benchmark and the way to the number."""
        return "/".join([self.benchmark, *map(_shown, self.key)])

    def quoted(self, value: float) -> str:
        """Return a value as its page writes it, but for a space before the sign of percent."""
        return self.form.format(value)

    def value_in(self, found: Mapping[str, Any]) -> float | None:
        """Return its value in what a benchmark found; None: it was not measured."""
        place: Any = found
        for step in self.key:
            place = place.get(step) if isinstance(step, str) else _entry(place, step)
            if place is None:
                return None
        return float(place)


def _shown(step: Step) -> str:
    return step if isinstance(step, str) else " ".join(str(value) for _, value in step)


def _entry(entries: Any, wanted: tuple[tuple[str, object], ...]) -> Any:
    return next((one for one in entries if all(one.get(name) == value for name, value in wanted)), None)


PERFORMANCE = "docs/performance.md"
SCHEDULES = "docs/schedules.md"

BENCHMARKS = {
    one.module: one
    for one in (
        Benchmark("dispatch", fast=("--only", "noop", "balance")),
        Benchmark("resharding", fast=("--rounds", "5", "--cases", "llama_20m:2-1-1:1-1", "llama_20m:2-1-1:2-1")),
        Benchmark("schedule"),
        Benchmark("published_steps"),
        Benchmark("step_prediction", fast=()),
        Benchmark("step", fast=("--steps", "9", "--cases", "ppo_addition")),
        Benchmark("trl", fast=("--cases", "tiny", "--pairs", "5")),
        Benchmark("megatron", fast=("--only", "cases", "--shapes", "llama_20m", "--dtypes", "float32", "--seeds", "2")),
        Benchmark("refit_gate"),
        Benchmark("rollout_journal"),
        Benchmark("ettr"),
    )
}


def _dispatch() -> Iterator[Ratio]:
    call = "a call with nothing to do on 8 light ranks"
    large, small = "64 MiB of ragged rows", "64 KiB of them"
    drained, blind = "if our driver takes in what the ranks report", "if both drivers only wait for the rows"
    lines = {
        "noop_ratio": call, "noop_ratio_no_argument": call, "chain_ratio": large, "chain_ratio_64KiB": small,
        "chain_ratio_drained": drained, "chain_ratio_64KiB_drained": drained, "chain_ratio_blind": blind,
        "chain_ratio_64KiB_blind": blind,
    }  # fmt: skip
    for key, line in lines.items():
        yield Ratio("dispatch", (key,), Better.less, PERFORMANCE, line, fast=line == call)
    balance = "heaviest replica's tokens / mean"
    yield Ratio("dispatch", ("balance",), Better.less, PERFORMANCE, balance, "{:.5f}", fast=True)
    pulls = "bytes moved / bytes of the rows wanted"
    for rows in ("permuted", "uneven"):
        yield Ratio("dispatch", ("pull_amplification", "one_node", rows), Better.less, PERFORMANCE, pulls)


def _resharding() -> Iterator[Ratio]:
    cases = {
        ("llama_130m", "Llama 130M"): ("4-1-1 → 2-1", "2-1-1 → 1-1"),
        ("smollm2_135m", "SmolLM2-135M's shape"): ("1-2-1 → 1-1", "1-2-1 → 1-2"),
        ("llama_20m", "Llama 20M"): (
            "4-1-1 → 2-1", "2-2-1 → 2-1", "2-1-2 → 1-1", "2-1-1 → 1-1", "1-2-1 → 1-1", "2-1-1 → 2-1",
        ),
    }  # fmt: skip
    better = {
        "time_vs_bare": Better.less, "speedup_vs_v": Better.more, "speedup_vs_dschat": Better.more,
        "time_vs_reload": Better.less,
    }  # fmt: skip
    for (model, title), layouts in cases.items():
        for layout in layouts:
            train, _, generate = layout.partition(" → ")
            case = (("model", model), ("train", train), ("generate", generate))
            fast = model == "llama_20m" and layout in ("2-1-1 → 1-1", "2-1-1 → 2-1")
            for name, direction in better.items():
                line = f"| {title} | {layout} |"
                yield Ratio("resharding", ("cases", case, name), direction, PERFORMANCE, line, fast=fast)


def _megatron() -> Iterator[Ratio]:
    better = {"train_ratio": Better.more, "score_ratio": Better.more, "overhead": Better.less}
    titles = {
        "llama_20m float32": "Llama 20M, float32", "llama_20m bfloat16": "Llama 20M, bfloat16",
        "smollm2_135m float32": "SmolLM2-135M's shape, float32",
        "smollm2_135m bfloat16": "SmolLM2-135M's shape, bfloat16",
    }  # fmt: skip
    for case, title in titles.items():
        for name, direction in better.items():
            fast = case == "llama_20m float32"
            yield Ratio("megatron", ("cases", case, name), direction, PERFORMANCE, f"| {title}", fast=fast)
    for key in ("sharing_ratio", "sharing_least"):
        yield Ratio("megatron", (key,), Better.more, PERFORMANCE, f"`{key}`")


def _schedule() -> Iterator[Ratio]:
    titles = {
        "stream": "| `stream` |", "tail_batching": "| tail batching", "one_step_off": "| `one_step_off` |",
        "async_1": "| `async`, S = 1 |", "async_2": "| `async`, S = 2 |", "async_2_whole": "| `async`, S = 2, rows not",
        "async_4": "| `async`, S = 4 |", "sync_lent": "| `sync`, as many [lent",
        "async_1_lent": "| `async`, S = 1, as many",
    }  # fmt: skip
    for schedule, title in titles.items():
        for distribution in ("short", "lognormal", "tail"):
            for slots in (64, 1024):
                row = (("schedule", schedule), ("distribution", distribution), ("slots", slots))
                yield Ratio("schedule", ("rows", row, "over_sync"), Better.more, SCHEDULES, title)


def _others() -> Iterator[Ratio]:
    for case in ("ppo_addition", "grpo_addition", "grpo_smollm2"):
        fast = case == "ppo_addition"
        yield Ratio("step", (case, "engine_share"), Better.more, PERFORMANCE, "`engine_share`", fast=fast)
    for key, line in {"ratio": "| SmolLM2-135M-Instruct, bfloat16 |", "tiny_ratio": "(`--cases tiny`)"}.items():
        yield Ratio("trl", (key,), Better.more, PERFORMANCE, line, fast=key == "tiny_ratio")
    simulators, profile = "docs/simulators.md", "docs/profile.md"
    published = "| all | 63 |"
    yield Ratio("published_steps", ("mape",), Better.less, simulators, published, "{:.0%}")
    yield Ratio("published_steps", ("kendall",), Better.more, simulators, published)
    predicted = "| **all** | 60 |"
    yield Ratio("step_prediction", ("step_error",), Better.less, profile, predicted, "{:.0%}", fast=True)
    yield Ratio("step_prediction", ("spearman",), Better.more, profile, predicted, fast=True)
    gate, journal = "docs/resharding.md", "docs/reliability.md"
    for experiment in ("addition", "smollm2"):
        said = "in running engines, and measures the share"
        yield Ratio("refit_gate", ("share", experiment), Better.less, gate, said, "{:.1%}")
    for experiment, said in {"addition": "benchmarks.rollout_journal --json", "smollm2": "(512 rows, 1.6 s"}.items():
        yield Ratio("rollout_journal", ("share", experiment), Better.less, journal, said, "{:.1%}")
    yield Ratio("ettr", ("ettr_at_300s_steps",), Better.more, journal, "| ETTR with the same", "{:.3f}")


RATIOS = (*_dispatch(), *_resharding(), *_megatron(), *_schedule(), *_others())
