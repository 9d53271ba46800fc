"""One table an architecture: a Hugging Face config and its weights' names ↔ Megatron's slices. Pure."""

from hybridflow.models.shape import Shape, read_shape
from hybridflow.models.weights import Weight, hf_view, table

__all__ = ["Shape", "Weight", "hf_view", "read_shape", "table"]
