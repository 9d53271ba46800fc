"""Rows and columns: held here (`Batch`) or elsewhere (`BatchRef`)."""

from hybridflow.batch.balance import partition, partition_groups
from hybridflow.batch.batch import Batch, Plain, concat
from hybridflow.batch.batch_ref import BatchRef
from hybridflow.batch.columns import Column, Ragged
from hybridflow.batch.joining import stacked
from hybridflow.batch.row_source import Metadata

__all__ = [
    "Batch",
    "BatchRef",
    "Column",
    "Metadata",
    "Plain",
    "Ragged",
    "concat",
    "partition",
    "partition_groups",
    "stacked",
]
