"""Everything that Megatron-core 0.16.1 needs to run on CPU tensors. One patch an entry, each with its reason.

Flags (`use_cpu_initialization`, the fusions) and our own layer classes do the rest; see `gpt_model` and `layer_spec`.
No newer Megatron-core has a CPU platform (0.17 and later need Python 3.12). When one does, this file goes away:
`pending()` says for each patch whether the pristine library still needs it, and a test fails when one does not.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

MEGATRON = "0.16.1"

CUDA_LITERALS = {
    "cuda": "cpu",
    "torch.cuda.FloatTensor": "torch.FloatTensor",
    "torch.cuda.HalfTensor": "torch.HalfTensor",
    "torch.cuda.BFloat16Tensor": "torch.BFloat16Tensor",
}

# Functions that name a CUDA device or tensor type in a literal. A constant of the code object is replaced, because a
# TorchFunctionMode would cost time at every torch call of a step and would not reach the tensor type names.
WITH_LITERALS = (
    "pipeline_parallel.schedules:forward_backward_no_pipelining",
    "pipeline_parallel.schedules:forward_backward_pipelining_without_interleaving",
    "utils:local_multi_tensor_l2_norm",
    "optimizer.clip_grads:get_grad_norm_fp32",
    "optimizer.clip_grads:clip_grad_by_total_norm_fp32",
    "optimizer.optimizer:FP32Optimizer.__init__",
    "optimizer.optimizer:MixedPrecisionOptimizer.__init__",
    "optimizer.optimizer:Float16OptimizerWithFloat16Params.__init__",
    "optimizer.distrib_optimizer:DistributedOptimizer._build_model_and_main_param_groups",
)

# Functions that move a tensor with `.cuda()` whatever the device.
WITH_CUDA_CALLS = ("models.common.language_module.language_module:LanguageModule.setup_embeddings_and_output_layer",)

_applied = False


def apply() -> None:
    """Patch this process's Megatron-core; once, before a model is built. Raises RuntimeError on another version."""
    global _applied
    if _applied:
        return
    import megatron.core

    if megatron.core.__version__ != MEGATRON:
        raise RuntimeError(f"the CPU shim is for megatron-core {MEGATRON}; {megatron.core.__version__} is installed")
    _applied = True
    # 175 places ask for the current device; on a CPU there is one.
    torch.cuda.current_device = lambda: torch.device("cpu")
    # Batched point-to-point calls synchronize the device; CPU tensors are always synchronized.
    torch.cuda.synchronize = lambda device=None: None
    _patch_rng()
    for spec in WITH_LITERALS:
        function = _function(spec)
        function.__code__ = _without_cuda(function.__code__)
    for spec in WITH_CUDA_CALLS:
        _ignore_cuda_calls(spec)


def pending() -> dict[str, bool]:
    """For each patch: whether the library as installed still needs it. Call it in a process without `apply`."""
    needs = {spec: _without_cuda(_function(spec).__code__) != _function(spec).__code__ for spec in WITH_LITERALS}
    needs |= {spec: "cuda" in _function(spec).__code__.co_names for spec in WITH_CUDA_CALLS}
    from megatron.core.tensor_parallel import random

    needs["CudaRNGStatesTracker"] = "cuda" in random.CudaRNGStatesTracker.add.__code__.co_names
    for function in (random._get_cuda_rng_state, random._set_cuda_rng_state):
        needs[function.__name__] = _without_cuda(function.__code__) != function.__code__
    for name in ("current_device", "synchronize"):
        try:
            getattr(torch.cuda, name)()
            needs[f"torch.cuda.{name}"] = False
        except (AssertionError, RuntimeError):
            needs[f"torch.cuda.{name}"] = True
    return needs


def _function(spec: str) -> Any:
    module, _, path = spec.partition(":")
    function: Any = importlib.import_module(f"megatron.core.{module}")
    for part in path.split("."):
        function = function.__dict__[part]
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _without_cuda(code: types.CodeType) -> types.CodeType:
    def swap(constant: object) -> object:
        if isinstance(constant, str):
            return CUDA_LITERALS.get(constant, constant)
        if isinstance(constant, tuple):
            return tuple(map(swap, constant))
        return _without_cuda(constant) if isinstance(constant, types.CodeType) else constant

    return code.replace(co_consts=tuple(map(swap, code.co_consts)))


def _ignore_cuda_calls(spec: str) -> None:
    """Run one method with `Tensor.cuda` doing nothing, and only that method."""
    module, _, path = spec.partition(":")
    owner_name, name = path.split(".")
    owner = getattr(importlib.import_module(f"megatron.core.{module}"), owner_name)
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        moved = torch.Tensor.cuda
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor
        try:
            return original(*args, **kwargs)
        finally:
            torch.Tensor.cuda = moved

    setattr(owner, name, wrapped)


def _patch_rng() -> None:
    """Replace the tracker, which keeps CUDA generator states, by one of the CPU generator's, with the same methods.

    Recomputation of activations reads and sets such states too; without CUDA torch would put off each setting for ever.
    """
    from megatron.core.tensor_parallel import random

    class CpuRNGStatesTracker(random.CudaRNGStatesTracker):
        def add(self, name: str, seed: int) -> None:
            if name in self.states_ or seed in self.seeds_:
                raise ValueError(f"random state {name!r} with seed {seed} is there already")
            self._is_initialized = True
            self.seeds_.add(seed)
            self.states_[name] = torch.Generator().manual_seed(seed).get_state()

        @contextlib.contextmanager
        def fork(self, name: str = random._MODEL_PARALLEL_RNG_TRACKER_NAME) -> Iterator[None]:
            outer = torch.get_rng_state()
            torch.set_rng_state(self.states_[name])
            try:
                yield
            finally:
                self.states_[name] = torch.get_rng_state()
                torch.set_rng_state(outer)

    random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    random.CudaRNGStatesTracker = CpuRNGStatesTracker
