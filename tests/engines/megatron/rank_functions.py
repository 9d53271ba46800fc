"""What ranks run: an engine whose reading is counted."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hybridflow.engines.megatron import cpu_shim, rng_states
from hybridflow.models import Along
from hybridflow.models import weight_files as model_folder
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from tests.engines.rank_functions import engine
from tests.models.counting import Counting


def load_counted(folder: Path, layout: Layout, out: Path) -> tuple[int, int, int]:
    """Load, and write to `out`: bytes that were read, bytes of this rank's parameters, bytes of padding in them."""
    original = model_folder.safe_open
    counting = Counting(original)
    model_folder.safe_open = counting  # type: ignore[assignment]
    try:
        made = engine(folder, layout)
    finally:
        model_folder.safe_open = original
    params = dict(made.model.named_parameters())
    padding = 0
    for part in made.weights.slices:
        if part.weight.along is Along.vocabulary:
            rows = made.sharding.padded(part.weight) // layout.tensor - (part.span[1] - part.span[0])
            padding += rows * 4 * part.weight.shape[1]
    made.export(out)
    return counting.taken(), sum(param.nbytes for param in params.values()), padding


def seeded(folder: Path, value: int) -> dict[str, list[float]]:
    """Every random state after that seed, whatever was drawn before."""
    if platform().shimmed:
        cpu_shim.apply()
    for draw in (random.random, np.random.random, torch.rand(()).item):
        draw()
    rng_states.seed(value, 0)
    rng_states.EngineRandomness().save(folder / "rng.safetensors")
    return {name: state.tolist() for name, state in load_file(folder / "rng.safetensors").items()}
