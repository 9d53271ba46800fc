"""Hugging Face facts of an architecture: sizes, tensors and their layers. How an engine shards them is the engine's."""

from hybridflow.models.head import Head
from hybridflow.models.model_shape import ModelShape, read_shape
from hybridflow.models.weight_table import Along, Weight, stage_table, table

__all__ = ["Along", "Head", "ModelShape", "Weight", "read_shape", "stage_table", "table"]
