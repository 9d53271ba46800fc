"""The rows of a task that a step is given, and those of the step that are written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybridflow.algorithms import Algorithm
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.joining import concat
from hybridflow.batch.lineage import KIN
from hybridflow.controller import put
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.tasks import Prompts
from hybridflow.trainer.chosen_rows import rows_for


def drawn(algorithm: Algorithm, prompts: Prompts, number: int) -> BatchRef:
    """Return the prompts of draw 0, 1, 2, …, which know their places in the order of the run."""
    rows = rows_for(algorithm, prompts.task, prompts.split, prompts.at(number))
    return put(rows).placed(prompts.places(number))


def with_old_log_probs(rollout: BatchRef, scored: Sequence[BatchRef]) -> BatchRef:
    """Return the rows of a step with the `old_log_probs` that some of them were learned from by.

    Of the others, which a filter left out, a row of the column is empty. Rows that have the column, or of which nobody
    knows which were scored, stay as they are.

    Args:
        scored: `StepContext.scored`.
    """
    if not scored or OLD_LOG_PROBS in rollout.columns or not all(map(_has_names, (rollout, *scored))):
        return rollout
    place = {name: row for row, name in enumerate(name for part in scored for name in _names(part))}
    rows = [place.get(name, len(place)) for name in _names(rollout)]
    log_probs = [part.select_columns([OLD_LOG_PROBS]) for part in scored]
    columns = [BatchRef(len(part), part.sources) for part in log_probs]
    if len(place) in rows:
        columns.append(put(Batch(**{OLD_LOG_PROBS: Ragged.of([[]], np.float32)})))
    return rollout | concat(columns).select(rows)


def _has_names(rows: BatchRef) -> bool:
    return KIN in rows.lineage and "copy_id" in rows.driver_columns


def _names(rows: BatchRef) -> Sequence[tuple[int, int]]:
    """Name each row by its group and which sample of it it is."""
    return [*zip(rows.lineage[KIN].tolist(), rows.driver_columns["copy_id"].tolist(), strict=True)]
