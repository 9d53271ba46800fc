"""Do rows become a padded batch anywhere? One long row among many short ones, beside as many tokens in even rows.

Padded to the longest, the former would be many times the latter; `padded` says how many times. What our code has of
them is: `wire`, the bytes of a message with their tokens and log-probs, over those of its numbers and of where rows
begin; `packed`, the tokens that the model is given, over those of the rows; and `peak`, the most bytes of tensors that
an update on them has beyond what there was before, over that of the even rows, with the same budget of tokens a
micro-batch.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import random_model
from hybridflow.batch import Batch, Ragged

ROWS, SHORT, LONG = 512, 8, 4096
SIZES = dict(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4,
)  # fmt: skip


def rows_of(lengths: list[int]) -> Batch:
    """Rows of these lengths, half of them prompt, with what a step's update reads of them."""
    draw = np.random.default_rng(0)

    def tokens(sizes: list[int]) -> Ragged:
        return Ragged.of([draw.integers(0, SIZES["vocab_size"], size) for size in sizes])

    responses = tokens([length - length // 2 for length in lengths])
    names = ("old_log_probs", "advantages")
    numbers = {name: responses.like(np.zeros(int(responses.lengths.sum()), np.float32)) for name in names}
    return Batch(prompt_ids=tokens([length // 2 for length in lengths]), response_ids=responses, **numbers)


def long_and_even() -> tuple[list[int], list[int]]:
    """Lengths of short rows with a long one among them, and of as many even rows with as many tokens."""
    uneven = [SHORT] * (ROWS - 1) + [LONG]
    least, more = divmod(sum(uneven), ROWS)
    return uneven, [least + (row < more) for row in range(ROWS)]


def ragged() -> dict[str, float]:
    """Measure, in a world of one rank."""
    uneven, even = (rows_of(lengths) for lengths in long_and_even())
    tokens = sum(long_and_even()[0])
    with tempfile.TemporaryDirectory() as folder:
        peaks, packed = _trained(Path(folder), uneven, even)
    return {
        "padded": round(ROWS * LONG / tokens, 1),
        "wire": round(len(pickle.dumps(uneven.to_wire(), protocol=5)) / uneven.nbytes, 4),
        "packed": round(packed / tokens, 4),
        "peak": round(peaks[0] / peaks[1], 3),
    }


def _trained(folder: Path, *batches: Batch) -> tuple[list[int], int]:
    """Return the peak of an update on each of these, beyond what there was; and the tokens packed of the first."""
    import torch

    from benchmarks.megatron import start
    from benchmarks.tensor_bytes import TensorBytes
    from hybridflow.config.schema import OptimizerConfig
    from hybridflow.engines.megatron.engine import MegatronEngine
    from hybridflow.parallel.layout import Layout
    from hybridflow.parallel.process_groups import make_groups

    start(str(folder))
    counter = TensorBytes()
    model = random_model(folder / "model", SIZES, LONG)
    engine: Any = None
    with counter.phase():
        groups = make_groups(Layout(), 600.0)
        engine = MegatronEngine(model, groups, dtype=torch.float32, budget=LONG, optimizer=OptimizerConfig())
    packed = sum(micro.tokens.numel() for micro in engine.pack(batches[0]))
    peaks = []
    for batch in (batches[0], *batches):  # the first makes what stays, as the optimizer's state
        with counter.phase() as found:
            engine.train(batch, lambda outputs, _: -outputs.log_probs.sum())
        peaks.append(found["peak"] - found["before"])
    return peaks[1:], packed
