"""Platform: CPU and gloo, or CUDA and NCCL. Nothing else in the project asks which it is.

`platform()` decides once: as the pool of this process has chosen, else by what torch sees. On a CPU a slot is one
process with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow import process_memory
from hybridflow.config.schema import Device
from hybridflow.errors import HybridFlowError
from hybridflow.parallel import bf16, gloo_device
from hybridflow.parallel.offloaded import Offload


@dataclass(frozen=True)
class Platform:
    """Hardware that a process runs on, and what differs between its kinds.

    Attributes:
        name: "cpu" or "cuda".
        backend: of torch.distributed.
        shimmed: whether libraries written for CUDA must be shimmed to run.
    """

    name: str
    backend: str
    shimmed: bool

    @property
    def accelerated(self) -> bool:
        """True for a device beside the host, with memory of its own and transfers that run beside its work."""
        return self.name == "cuda"

    @property
    def device(self) -> torch.device:
        """Device of this process's tensors."""
        return torch.device(self.name, torch.cuda.current_device()) if self.name == "cuda" else torch.device("cpu")

    @property
    def device_name(self) -> str:
        """Name that its driver gives a GPU, as NVIDIA H200; empty for a CPU, whose cores are no devices."""
        return str(torch.cuda.get_device_name()) if self.name == "cuda" else ""

    def start(self, local_rank: int) -> None:
        """Claim this process's device, once, before any tensor is made."""
        gloo_device.apply()
        if self.name == "cuda":
            index = local_rank % torch.cuda.device_count()  # Ray shows each process its own GPU only
            torch.cuda.set_device(index)
            os.environ["LOCAL_RANK"] = str(index)  # by this name libraries take their device
            torch.set_float32_matmul_precision("highest")  # no TF32, also where an image makes it the default
        else:
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
            # Else torch keeps the stacks of the last 2,000 collectives, 1.3 KiB each, which nobody reads of gloo's.
            os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "0")
            if self.widens_bfloat16:
                bf16.apply()

    def process_group(self, store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.ProcessGroup:
        """Make a process group beside the default one, of processes that meet in that store."""
        if self.name == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            return dist.ProcessGroupNCCL(store, rank, size, options)
        return dist.ProcessGroupGloo(store, rank, size, timeout)

    def synchronize(self) -> None:
        """Wait for the device, so that a clock reads the truth."""
        if self.name == "cuda":
            torch.cuda.synchronize()

    def offload(self, tensors: Iterable[Tensor], *, keep: bool = True) -> Offload:
        """Let tensors wait in host memory, so that others have their memory on the device; see `Offload`.

        A CPU has one memory, so nothing is moved there.
        """
        return Offload(tensors if self.name == "cuda" else (), keep=keep)

    def reset_memory_peak(self) -> None:
        """Begin to watch for a new peak; on a CPU see `process_memory.reset_peak`."""
        if self.name == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            process_memory.reset_peak()

    def memory_peak(self) -> int:
        """Return the most bytes that were in use: of the device, in torch's tensors; on a CPU, by the process.

        0: this kernel does not tell.
        """
        return torch.cuda.max_memory_allocated() if self.name == "cuda" else process_memory.peak_bytes()

    @property
    def transformer_engine(self) -> bool:
        """True where TransformerEngine is installed for this hardware."""
        return self.name == "cuda" and find_spec("transformer_engine") is not None

    @property
    def widens_bfloat16(self) -> bool:
        """True where bfloat16 matrices are multiplied as float32 ones (`hybridflow.parallel.bf16`)."""
        return self.name == "cpu" and bf16.needed()

    @property
    def mixed_products(self) -> bool:
        """True where bfloat16 matrices can be multiplied into a float32 one."""
        return self.name == "cuda"

    def compile_nothing(self) -> None:
        """Let what is marked for `torch.compile` run as it is written, in this process, where compiling does not pay.

        On a CPU it takes seconds for small functions that take no time; on a GPU they save memory.
        """
        if self.name == "cpu":
            torch.compiler.set_stance("force_eager")


_slot = Device.auto  # what this process has to itself; auto: nobody has said so


def choose_platform(slot: Device) -> None:
    """Let this process use the CPU or the GPU that its slot is; call it before anything asks for the platform.

    Raises HybridFlowError for a GPU that torch does not see: on a CPU the run would be another than was asked for.
    """
    global _slot
    if slot is Device.gpu and not torch.cuda.is_available():
        raise HybridFlowError(
            f"placement.device: this slot has a GPU, but torch {torch.__version__} sees none; install what is for GPUs "
            "(docs/install.md), or set placement.device=cpu"
        )
    _slot = slot
    platform.cache_clear()


@cache
def platform() -> Platform:
    """Return this process's platform."""
    if _slot is Device.cpu or not torch.cuda.is_available():
        return Platform("cpu", "gloo", True)
    return Platform("cuda", "nccl", False)
