"""One table an architecture: a Hugging Face config and its weights' names ↔ Megatron's slices. Pure."""

from hybridflow.models.model_shape import ModelShape, read_shape
from hybridflow.models.weight_table import Weight, hf_view, table

__all__ = ["ModelShape", "Weight", "hf_view", "read_shape", "table"]
