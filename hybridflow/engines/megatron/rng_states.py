"""States of every random number generator of this process: torch's, Megatron's tracker's, numpy's and Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker, model_parallel_cuda_manual_seed
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridflow.models.model_export import open_to_readers
from hybridflow.parallel.platform import platform

TRACKER = "tracker."
ENGINE = "engine."


def seed(value: int, tp_rank: int) -> None:
    """Seed every generator; Megatron's tracker has a state of its own for each tensor rank."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    model_parallel_cuda_manual_seed(value, tp_rank=tp_rank, ep_rank=0, etp_rank=0, force_reset_rng=True)


class RandomStates(NamedTuple):
    """States of every generator at one time."""

    torch: Tensor
    device: Tensor | None
    numpy: Any
    python: Any
    tracker: dict[str, Tensor]

    @staticmethod
    def now() -> RandomStates:
        """Return those of this process."""
        device = torch.cuda.get_rng_state() if platform().name == "cuda" else None
        tracked = {name: state.clone() for name, state in get_cuda_rng_tracker().get_states().items()}
        numpy = np.random.get_state(legacy=True)
        return RandomStates(torch.get_rng_state(), device, numpy, random.getstate(), tracked)

    def take_up(self) -> None:
        """Let this process go on from here."""
        torch.set_rng_state(self.torch)
        if self.device is not None:
            torch.cuda.set_rng_state(self.device)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        get_cuda_rng_tracker().set_states({name: state.clone() for name, state in self.tracker.items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """Return all that they are, as safetensors has it."""
        name, keys, place, has_gauss, gauss = self.numpy
        assert name == "MT19937", name
        version, words, spare = self.python
        states: dict[str, Tensor] = {
            "torch": self.torch,
            "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "numpy_place": torch.tensor([place, has_gauss]),
            "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
            "python": torch.tensor([version, *words]),
            "python_gauss": torch.tensor([] if spare is None else [spare], dtype=torch.float64),
        }
        if self.device is not None:
            states["cuda"] = self.device
        return states | {TRACKER + name: state for name, state in self.tracker.items()}

    @staticmethod
    def from_tensors(states: Mapping[str, Tensor]) -> RandomStates:
        """Return what `to_tensors` was called on."""
        place, has_gauss = states["numpy_place"].tolist()
        keys = states["numpy"].numpy().astype(np.uint32)
        version, *words = states["python"].tolist()
        spare = states["python_gauss"].tolist()
        return RandomStates(
            states["torch"],
            states.get("cuda"),
            ("MT19937", keys, place, has_gauss, states["numpy_gauss"].item()),
            (version, tuple(words), spare[0] if spare else None),
            {name.removeprefix(TRACKER): state for name, state in states.items() if name.startswith(TRACKER)},
        )


class EngineRandomness:
    """Random states that one engine draws from, as a loss of a user's may, and nothing else in its process.

    So what is drawn does not depend on what other roles are placed in the process, nor on whether it generates. They
    begin where the process is when this is made.
    """

    def __init__(self) -> None:
        self._states = RandomStates.now()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Draw from these states inside of the block, and leave those of the process as they were."""
        outside = RandomStates.now()
        self._states.take_up()
        try:
            yield
        finally:
            self._states = RandomStates.now()
            outside.take_up()

    def save(self, file: Path) -> None:
        """Write these states and the process's as safetensors."""
        own = {ENGINE + name: state for name, state in self._states.to_tensors().items()}
        save_file(RandomStates.now().to_tensors() | own, file)
        open_to_readers(file)

    def load(self, file: Path) -> None:
        """Go on, with the process, where `save` was called. Checkpoints of early versions have states of that alone."""
        states = load_file(file)
        own = {name.removeprefix(ENGINE): state for name, state in states.items() if name.startswith(ENGINE)}
        process = {name: state for name, state in states.items() if not name.startswith(ENGINE)}
        self._states = RandomStates.from_tensors(own or process)
        RandomStates.from_tensors(process).take_up()
