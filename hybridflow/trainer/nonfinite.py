"""Updates whose gradient was not finite: how many in a row end a run, and the rows that it is ended by, for study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.errors import HybridFlowError
from hybridflow.observe.disk_errors import DiskError, writing
from hybridflow.trainer.progress import Progress


def end_if_too_many(progress: Progress, limit: int, rollout: BatchRef, folder: Path) -> None:
    """Raise HybridFlowError, having written the rows of the step, if the last updates of a role were all skipped.

    Args:
        limit: so many in a row.
        rollout: the step's rows.
        folder: for a file named after the step.
    """
    for role, learning in progress.learning.items():
        if learning.nonfinite_in_a_row < limit:
            continue
        file = folder / f"step-{progress.steps:06d}.safetensors"
        try:
            write_rows(rollout.get(), file)
            rows = f"the rows of this step are in {file}. Look there for numbers that are not finite"
        except DiskError as error:  # which is not what the run ends by
            rows = f"the rows of this step cannot be written ({error}). Look for numbers that are not finite"
        raise HybridFlowError(
            f"step {progress.steps}: the gradients of the last {learning.nonfinite_in_a_row:.0f} updates of the {role} "
            f"were not finite, on all ranks alike these were skipped; {rows}, lower "
            f"{role}.optimizer.lr, or allow more by trainer.max_nonfinite_updates"
        )


def write_rows(rows: Batch, file: Path) -> None:
    """Write every column, bit by bit: numbers as tensors, of a ragged one also `NAME.offsets`; the rest as JSON.

    That is in the file's metadata, a list a column.
    """
    tensors: dict[str, np.ndarray] = {}
    others: dict[str, str] = {}
    for name, column in rows.items():
        values = column.values if isinstance(column, Ragged) else column
        if isinstance(column, Ragged):
            tensors[f"{name}.offsets"] = np.ascontiguousarray(column.offsets)
        if values.dtype == object:
            others[name] = json.dumps(values.tolist(), default=str)
        else:
            tensors[name] = np.ascontiguousarray(values)
    with writing(file):
        file.parent.mkdir(exist_ok=True)
        save_file(tensors, file, others)
