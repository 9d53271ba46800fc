"""How good the models of runs are on held-out questions: their evaluation, or the last validation of their training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from hybridflow.errors import counted
from hybridflow.observe.report.choices import told
from hybridflow.observe.run_records import VALIDATION, RunRecords, finite
from hybridflow.observe.statistic_texts import comparison_text, with_errors

MAX_NAME = 200  # characters of what a model, a set or a metric is called
MAX_NUMBERS = 500  # of an evaluation: each set of questions has some for each of its sources
COMPARED = ("difference", "error", "p_value", "questions")


def evaluation(run: RunRecords) -> dict[str, Any] | None:
    """Return what the page shows of a run's answers to held-out questions; None if it was asked none.

    Returns:
        `of`: whose answers they are; `numbers`: each statistic with its standard error as text, by name; `compared`:
        how the model compares to another on the same questions, a text for each set of them.
    """
    if run.evaluation:
        of = told(run.evaluation.get("model", "?"), MAX_NAME)
        statistics = run.evaluation.get("statistics")
    elif run.metrics.validations:
        last = run.metrics.validations[-1]
        of = f"after {counted(last['step'], 'step')}"
        statistics = {name.removeprefix(VALIDATION): value for name, value in last.items() if name != "step"}
    else:
        return None
    known = islice(statistics.items(), MAX_NUMBERS) if isinstance(statistics, Mapping) else ()
    numbers = {told(name, MAX_NAME): number for name, value in known if (number := finite(value)) is not None}
    return {"of": of, "numbers": with_errors(numbers), "compared": [*_compared(of, run.evaluation)]}


def _compared(model: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Say for each set of questions how far a model is from the one that it was compared with."""
    compared = result.get("compared")
    models = told(result.get("against", "the other model"), MAX_NAME), model
    for name, found in islice(compared.items(), MAX_NUMBERS) if isinstance(compared, Mapping) else ():
        facts = found if isinstance(found, Mapping) else {}
        numbers = {fact: number for fact in COMPARED if (number := finite(facts.get(fact))) is not None}
        if len(numbers) == len(COMPARED):
            yield (f"{told(name, MAX_NAME)}: " if name else "") + comparison_text(models, **numbers)
