"""The platform: CPU and gloo, or CUDA and NCCL. Nothing else in the project asks which it is.

`platform()` decides once, by what torch sees. On a CPU a slot is one process with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hybridflow.parallel import bf16
from hybridflow.parallel.parked import Parked


@dataclass(frozen=True)
class Platform:
    """What differs between kinds of hardware.

    Attributes:
        name: "cpu" or "cuda".
        backend: of torch.distributed.
        shimmed: whether libraries written for CUDA must be shimmed to run (`engines/megatron/cpu_shim.py`).
    """

    name: str
    backend: str
    shimmed: bool

    @property
    def device(self) -> torch.device:
        """Where this process puts its tensors."""
        return torch.device(self.name, torch.cuda.current_device()) if self.name == "cuda" else torch.device("cpu")

    def start(self, local_rank: int) -> None:
        """Take this process's device, once, before any tensor is made."""
        if self.name == "cuda":
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
            if bf16.needed():
                bf16.apply()

    def synchronize(self) -> None:
        """Wait for the device, so that a clock reads the truth."""
        if self.name == "cuda":
            torch.cuda.synchronize()

    def park(self, tensors: Iterable[Tensor], *, keep: bool = True) -> Parked:
        """Let tensors wait in host memory, so that others have their memory on the device; see `Parked`.

        A CPU has one memory, so nothing is moved there.
        """
        return Parked(tensors if self.name == "cuda" else (), keep=keep)

    def megatron_options(self) -> dict[str, bool]:
        """Settings of Megatron's TransformerConfig that only one kind of hardware has."""
        return {"use_cpu_initialization": self.name == "cpu"}

    def vllm_options(self, *, kv_cache_gib: float, gpu_memory_fraction: float) -> dict[str, object]:
        """Engine arguments that only one kind of hardware has."""
        if self.name == "cuda":
            return {"gpu_memory_utilization": gpu_memory_fraction}
        return {"kv_cache_memory_bytes": int(kv_cache_gib * 2**30)}


@cache
def platform() -> Platform:
    """This process's platform."""
    return Platform("cuda", "nccl", False) if torch.cuda.is_available() else Platform("cpu", "gloo", True)
