"""States of every random number generator of this process: torch's, Megatron's tracker's, numpy's and Python's."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker, model_parallel_cuda_manual_seed
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridflow.models.model_export import open_to_readers
from hybridflow.parallel.platform import platform

TRACKER = "tracker."


def seed(value: int, tp_rank: int) -> None:
    """Seed every generator; Megatron's tracker has a state of its own for each tensor rank."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    model_parallel_cuda_manual_seed(value, tp_rank=tp_rank, ep_rank=0, etp_rank=0, force_reset_rng=True)


def save(file: Path) -> None:
    """Write them as safetensors."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    assert name == "MT19937", name
    version, words, spare = random.getstate()
    states: dict[str, Tensor] = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([place, has_gauss]),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor([] if spare is None else [spare], dtype=torch.float64),
    }
    if platform().name == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    tracked = get_cuda_rng_tracker().get_states()
    save_file(states | {TRACKER + name: state.clone() for name, state in tracked.items()}, file)
    open_to_readers(file)


def load(file: Path) -> None:
    """Go on where `save` was called."""
    states = load_file(file)
    torch.set_rng_state(states["torch"])
    place, has_gauss = states["numpy_place"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, place, has_gauss, states["numpy_gauss"].item()))
    version, *words = states["python"].tolist()
    spare = states["python_gauss"].tolist()
    random.setstate((version, tuple(words), spare[0] if spare else None))
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    tracked = {name.removeprefix(TRACKER): state for name, state in states.items() if name.startswith(TRACKER)}
    get_cuda_rng_tracker().set_states(tracked)
