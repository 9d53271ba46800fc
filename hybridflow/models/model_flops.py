"""Model FLOPs: the operations that a model's mathematics take, whatever a machine does on top or leaves out.

Forward, products of matrices are 2 operations for each number of a matrix and each token; causal attention is 2 for
each number of a head and each pair of a token and one that it may see, twice: scores, and the sum that they weigh. A
backward pass takes twice as many. Source: Chowdhery et al., "PaLM" (arXiv 2204.02311), appendix B, which counts
attention as if it saw all tokens; what a causal mask hides is left out here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridflow.models.head import Head
from hybridflow.models.model_shape import ModelShape

FORWARD_AND_BACKWARD = 3


def training_flops(shape: ModelShape, head: Head, lengths: Any) -> float:
    """Return the model FLOPs of a forward and a backward pass over rows of these lengths in tokens, [R].

    Each row counts as if it were alone, with all of its tokens, at the output layer too: what rows share and is
    computed once, or what nobody reads and is not computed, makes a machine faster and the count no smaller. What is
    recomputed does not count.
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    matrices = shape.layers * (attention + 3 * shape.hidden * shape.ffn)
    output = shape.vocab * shape.hidden if head is Head.lm else shape.hidden
    seen = 2.0 * shape.layers * shape.heads * shape.head_dim * np.square(tokens).sum()
    return float(FORWARD_AND_BACKWARD * (2.0 * (matrices + output) * tokens.sum() + seen))
