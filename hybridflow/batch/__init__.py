"""Rows and columns: held here (`Batch`) or elsewhere (`BatchRef`)."""

from hybridflow.batch.batch import Batch, concat
from hybridflow.batch.columns import Column, Ragged
from hybridflow.batch.ref import BatchRef

__all__ = ["Batch", "BatchRef", "Column", "Ragged", "concat"]
