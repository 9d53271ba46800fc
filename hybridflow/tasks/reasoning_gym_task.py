"""Task and grader `reasoning_gym`: the datasets of the package reasoning-gym, scored by it in a sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridflow.bounds import Count, NotNegativeInt
from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks import reasoning_scorer
from hybridflow.tasks.graded_row import GradedRow
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.sandbox import Limits, Sandbox
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIES = 100
START_S = 60.0  # for the package to be imported in the sandbox
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ORDER = "Give the final answer as <answer>…</answer>."


def package() -> Path:
    """Return the folder that has the package. Raises HybridFlowError if it is not installed."""
    found = find_spec("reasoning_gym")
    if found is None or found.origin is None:
        raise HybridFlowError(
            "reasoning_gym needs the package reasoning-gym, which is not installed: pip install "
            "'hybridflow[reasoning-gym]'"
        )
    return Path(found.origin).parents[1]


@tasks.register("reasoning_gym")
class ReasoningGym(Task):
    """Questions of one of reasoning-gym's datasets, as chat messages; no question of `held_out` is in another split.

    Args:
        dataset: its name, as `basic_arithmetic`.
        config: what the dataset takes beside size and seed.
        seed: of its questions.
        train_rows, held_out_rows: rows in those splits; `warmup` has those of `train`.

    Raises ValueError for a dataset that is not there, or does not take this; HybridFlowError without the package.
    """

    grader = "reasoning_gym"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dataset: str,
        config: Mapping[str, Any] | None = None,
        seed: NotNegativeInt = 0,
        train_rows: Count = 10_000,
        held_out_rows: Count = 200,
    ) -> None:
        super().__init__(tokenizer)
        package()
        self._sizes = {"train": train_rows, "warmup": train_rows, "held_out": held_out_rows}
        size = train_rows + held_out_rows
        self._made = {"dataset": dataset, "config": dict(config or {}), "seed": seed, "size": size}
        self._entries = _dataset(self._made)
        self.source_names = frozenset({dataset})

    def size(self, split: str) -> int:
        return self._sizes[split]

    def example(self, split: str, index: int) -> Example:
        number = index if split == "held_out" else self._train_index(index)
        entry = self._entries[number]
        question = entry["question"]
        metadata = {"reasoning_gym": {"made": self._made, "index": number, "question": question}}
        prompt = [{"role": "user", "content": f"{question}\n\n{ORDER}"}]
        return Example(prompt, str(entry["answer"]), number, metadata, str(self._made["dataset"]))

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(self._entries[number]["question"] for number in range(self._sizes["held_out"]))

    def _train_index(self, index: int) -> int:
        """Return the entry of a row of `train`: one further on where a question is one of `held_out`."""
        for round_ in range(TRIES):
            number = self._sizes["held_out"] + index + round_ * self._sizes["train"]
            if self._entries[number]["question"] not in self._held_out:
                return number
        raise ValueError(
            f"dataset {self._made['dataset']!r} has too few questions: {TRIES} in a row are in held_out too; ask for "
            "fewer held_out_rows, or a config with more questions"
        )


@graders.register("reasoning_gym", batched=True)
class ReasoningGymGrader:
    """The score, from 0 to 1, that reasoning-gym gives the last `<answer>…</answer>`, or else the whole response.

    Args:
        row_s: seconds that scoring a row may take; what takes longer is 0.0.
        memory_mb: megabytes of address space that scoring may have.

    Raises HybridFlowError where the package is not installed, or there is no sandbox: its scorers execute answers.
    """

    def __init__(self, *, row_s: Count = 5, memory_mb: Count = 4096) -> None:
        self._row_s = row_s
        packages = package()
        try:
            self._sandbox = Sandbox(Limits(memory_mb), packages)
        except HybridFlowError as error:
            raise HybridFlowError(f"grader reasoning_gym scores nothing outside of a sandbox: {error}") from error
        self._program = Path(reasoning_scorer.__file__).read_text(encoding="utf-8")

    def __call__(self, rows: Sequence[GradedRow]) -> list[float]:
        if not rows:
            return []
        told = {"rows": [_told(row) for row in rows], "row_s": self._row_s}
        ended = self._sandbox.run(self._program, json.dumps(told), START_S + self._row_s * len(rows))
        if ended.status != 0:
            raise ValueError(f"reasoning-gym's scorers ended with status {ended.status}, 0 was expected")
        scores = json.loads(ended.output.splitlines()[-1])
        if None in scores:
            raise ValueError(
                "reasoning-gym made another question from the same seed than was asked: this dataset cannot be graded"
            )
        return list(map(float, scores))

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Raise ValueError for a row of another task."""
        _asked(metadata)


def _asked(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    known = metadata.get("reasoning_gym")
    if not isinstance(known, Mapping):
        raise ValueError(
            f"the row's metadata is {shown(metadata)}; the grader reasoning_gym needs rows of task=reasoning_gym"
        )
    return known


def _told(row: GradedRow) -> dict[str, Any]:
    known = _asked(row.metadata)
    found = ANSWER.findall(row.response)
    response = (found[-1] if found else row.response).strip()
    return {**known, "response": response.encode("utf-8", "replace").decode()}


def _dataset(made: Mapping[str, Any]) -> Any:
    """Return a dataset. Raises ValueError if there is none of that name, or it does not take the config."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    name = made["dataset"]
    if name not in DATASETS:
        near = get_close_matches(str(name), DATASETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        raise ValueError(
            f"dataset: {shown(name)} given{hint} one of reasoning-gym's was expected: {', '.join(sorted(DATASETS))}"
        )
    try:
        return reasoning_gym.create_dataset(name, seed=made["seed"], size=made["size"], **made["config"])
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"config: dataset {name!r} does not take {shown(made['config'])}: {error}") from error
