"""vLLM's sharding of a model. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hybridflow.engines.sharding import Indivisible, TensorSharding
from hybridflow.models import Along, ModelShape, Weight

PADDING = 64  # vLLM's VocabParallelEmbedding: DEFAULT_VOCAB_PADDING_SIZE


@dataclass(frozen=True)
class VllmSharding(TensorSharding):
    """Key/value heads that are fewer than the tensor ranks are copied, each to several neighbors."""

    def refusals(self) -> Iterator[Indivisible]:
        """Let heads divide or fill the ranks; the padded vocabulary must divide."""
        heads = self.shape.kv_heads
        tensor = self.tensor
        yield from self.uneven("tensor", tensor, self.shape.heads, "attention heads")
        if heads % tensor and tensor % heads:
            yield Indivisible("tensor", tensor, f"neither divides nor is a multiple of the {heads} key/value heads")
        yield from self.uneven("tensor", tensor, self.shape.ffn, "feed-forward rows")
        rows = f"rows to which vLLM pads the vocabulary of {self.shape.vocab}"
        yield from self.uneven("tensor", tensor, padded_vocabulary(self.shape), rows)
        yield from self.uneven("pipeline", self.pipeline, self.shape.layers, "layers")

    def padded(self, weight: Weight) -> int:
        """Pad a vocabulary, whatever the tensor size."""
        return padded_vocabulary(self.shape) if weight.along is Along.vocabulary else super().padded(weight)

    def copies(self, weight: Weight) -> int:
        """Count the ranks that have the keys and values of one head."""
        return max(self.tensor // self.shape.kv_heads, 1) if weight.along is Along.kv_heads else 1


def padded_vocabulary(shape: ModelShape) -> int:
    """Return the rows of an embedding, padding included."""
    return -(-shape.vocab // PADDING) * PADDING
