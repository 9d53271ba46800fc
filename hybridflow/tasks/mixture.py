"""Task `mixture`: the rows of several tasks, each at its share of what training takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hybridflow.errors import OTHER_REASON, ConfigError, DataError, shown
from hybridflow.options import effective_options, faults
from hybridflow.tasks.preference_task import PreferenceTask
from hybridflow.tasks.row_order import Portion, whole_shares
from hybridflow.tasks.task import SPLITS, Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN = ("task", "weight")
DEFAULT_TASK = "rows"


class Numbering(NamedTuple):
    """Numbering of a split's rows: of each its source and its number there, two [R] int64."""

    source: np.ndarray
    row: np.ndarray


@tasks.register("mixture")
class Mixture(PreferenceTask):
    """Mixture of several sources, by name: each has a `task`, that task's options, and a `weight`.

    With weights training takes the sources in exactly these shares (`hybridflow.tasks.row_order.Mixed`), each shuffled
    by itself and begun anew when it is through. Without, all rows are shuffled together. Sources take turns in every
    split, so that the first rows have all of them: by their weights, or without by their sizes.

    A row's `source` is the source's name, unless the source's task has one of its own; its `sample_id` begins with it.

    Args:
        sources: by name `{task: addition, weight: 0.3, max_operand: 20}`; without `task` it is `rows`.

    Raises ValueError naming what is wrong with a source.
    """

    is_local = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sources: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(tokenizer)
        if wrong := list(source_problems(sources)):
            raise ValueError("; ".join(wrong))
        self.sources: dict[str, Task] = {}
        for name, settings in sources.items():
            part = tasks.get(settings.get("task", DEFAULT_TASK))
            try:
                self.sources[name] = part(tokenizer, **effective_options(part, _options(settings)))
            except (ValueError, ConfigError) as error:
                raise ValueError(f"sources.{name}: {error}") from error
        self.weights = [settings["weight"] for settings in sources.values() if "weight" in settings]
        self.grader = next(iter(self.sources.values())).grader
        self.carries = frozenset({"source"}).union(*(task.carries for task in self.sources.values()))
        names = {name: task.source_names for name, task in self.sources.items()}
        if None not in names.values():
            self.source_names = frozenset(own or name for name, told in names.items() for own in told or ())
        known = [task.question_hashes for task in self.sources.values() if task.question_hashes is not None]
        if known:
            self.question_hashes = {split: np.unique(np.concatenate([own[split] for own in known])) for split in SPLITS}
        told = [f"{name} {task.fingerprint}" for name, task in self.sources.items() if task.fingerprint]
        self.fingerprint = blake2b("\n".join(told).encode(), digest_size=16).hexdigest() if told else ""
        self._numberings: dict[str, Numbering] = {}

    def size(self, split: str) -> int:
        return sum(task.size(split) for task in self.sources.values())

    def example(self, split: str, index: int) -> Example:
        name, row = self._at(split, index)
        with _named_source(name):
            example = self.sources[name].example(split, row)
        source = example.source or name
        return replace(example, sample_id=f"{name}/{example.sample_id}", source=source)

    def rejected(self, split: str, index: int) -> str:
        name, row = self._at(split, index)
        task = self.sources[name]
        if not isinstance(task, PreferenceTask):
            raise DataError(f"source {name!r}: {type(task).__name__} has no preferences; leave it out of the mixture")
        with _named_source(name):
            return task.rejected(split, row)

    def raw_row(self, split: str, index: int) -> Mapping[str, Any]:
        name, row = self._at(split, index)
        with _named_source(name):
            return self.sources[name].raw_row(split, row)

    def row_place(self, split: str, index: int) -> str:
        name, row = self._at(split, index)
        return f"source {name!r}: {self.sources[name].row_place(split, row)}"

    def rows_origin(self) -> str:
        told = ((name, task.rows_origin()) for name, task in self.sources.items())
        return "of " + ", ".join(f"{name} ({origin})" if origin else name for name, origin in told)

    def notes(self) -> Sequence[str]:
        return [f"source {name}: {line}" for name, task in self.sources.items() for line in task.notes()]

    def portions(self, split: str) -> Sequence[Portion]:
        """Return the sources with their weights; () if they have none. Raises DataError if one has no rows."""
        if not self.weights:
            return ()
        numbers = self._numbering(split).source
        found = [
            Portion(name, np.flatnonzero(numbers == place), weight)
            for place, (name, weight) in enumerate(zip(self.sources, self.weights, strict=True))
        ]
        for portion in found:
            if not len(portion.rows):
                raise DataError(
                    f"split {split!r}: the source {portion.name!r} has no rows; leave it out of the mixture"
                )
        return found

    def suspects(self, split: str) -> Sequence[int]:
        numbering = self._numbering(split)
        bad = np.zeros(len(numbering.row), dtype=bool)
        for place, task in enumerate(self.sources.values()):
            bad |= (numbering.source == place) & np.isin(numbering.row, task.suspects(split))
        return np.flatnonzero(bad).tolist()

    def _at(self, split: str, index: int) -> tuple[str, int]:
        """Return a row's source, and its number there."""
        numbering = self._numbering(split)
        return list(self.sources)[numbering.source[index]], int(numbering.row[index])

    def _numbering(self, split: str) -> Numbering:
        if split not in self._numberings:
            self._numberings[split] = in_turns([task.size(split) for task in self.sources.values()], self.weights)
        return self._numberings[split]


def in_turns(sizes: Sequence[int], weights: Sequence[float] = ()) -> Numbering:
    """Interleave the rows of several sources by their weights, or without by their sizes.

    A source's own rows stay in their order, and are all there: a source that is through is no more among what follows.
    """
    rates = weights or [max(size, 1) for size in sizes]
    due = np.concatenate([(np.arange(size) + 0.5) / rate for size, rate in zip(sizes, rates, strict=True)])
    order = np.argsort(due, kind="stable")
    source = np.repeat(np.arange(len(sizes)), sizes)
    row = np.concatenate([np.arange(size) for size in sizes])
    return Numbering(source[order], row[order])


@contextmanager
def _named_source(name: str) -> Iterator[None]:
    """Name the source in the errors of its rows, whose numbers there are other ones."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"source {name!r}: {error}", reason=getattr(error, "reason", OTHER_REASON)) from error


def source_problems(sources: object) -> Iterator[str]:
    """Yield what is wrong with the sources of a mixture, as `sources.NAME.OPTION: …`. Builds no task."""
    if not isinstance(sources, Mapping) or not sources:
        yield f"sources: {shown(sources)} given; sources by name were expected, as {{sums: {{task: addition}}}}"
        return
    for name, settings in sources.items():
        key = f"sources.{name}"
        if not isinstance(settings, Mapping):
            yield f"{key}: {shown(settings)} given; a task and its options were expected, as {{task: addition}}"
            continue
        task = settings.get("task", DEFAULT_TASK)
        if task == "mixture" or task not in tasks:
            others = ", ".join(known for known in sorted(tasks) if known != "mixture")
            yield f"{key}.task: {shown(task)} given; one of {others} was expected"
            continue
        for option, trouble in faults(tasks.get(task), _options(settings)).items():
            yield f"{key}.{option}: {trouble}"
    yield from _weight_problems({name: given for name, given in sources.items() if isinstance(given, Mapping)})


def _weight_problems(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    weights = {name: settings["weight"] for name, settings in sources.items() if "weight" in settings}
    if not weights:
        return
    if without := [name for name in sources if name not in weights]:
        yield f"sources.{without[0]}: it has no weight, and others have; give every source one, or none"
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e300:
            yield f"sources.{name}.weight: {shown(weight)} given; a number above 0 was expected"
            return
    try:
        whole_shares(list(weights.values()))
    except ValueError as error:
        yield f"sources: {error}"


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in OWN}
