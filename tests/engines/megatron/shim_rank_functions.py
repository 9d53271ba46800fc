"""What ranks run: the shim in a process of its own, and training without one of the patches that it needs on a CPU."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import megatron.core
import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import random

from hybridflow.batch import Batch
from hybridflow.config.schema import Recompute
from hybridflow.engines.megatron import cpu_shim, rng_states
from hybridflow.engines.megatron.engine import MegatronEngine
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from tests.engines import rank_functions, reference
from tests.engines.megatron import engine_reference

SHARDED = dataclasses.replace(reference.SETTINGS, distributed=True)
# Between them these use every patch.
WAYS: dict[str, tuple[Layout, dict[str, Any]]] = {
    "pipeline": (Layout(1, 2), {"settings": reference.SETTINGS}),
    "sequence-recompute": (
        Layout(2),
        {"settings": reference.SETTINGS, "sequence": True, "recompute": Recompute.full, "dtype": torch.bfloat16},
    ),
    "distributed": (Layout(data=2), {"settings": SHARDED}),
}  # fmt: skip


def pending_beside_a_gpu() -> dict[str, bool]:
    """Which patches Megatron needs, after an engine has been made that believes that there is a GPU.

    It gets as far as its random states, which are seeded after the shim.
    """
    torch.cuda.is_available = lambda: True
    platform.cache_clear()  # the rank has asked before
    first: Any = SimpleNamespace(at=SimpleNamespace(tp=0))
    try:
        MegatronEngine("nowhere", first, dtype=torch.float32, budget=1)
    except AssertionError as asked:
        assert "CUDA" in str(asked), asked
    return cpu_shim.pending()


def pending_after_the_shim() -> set[str]:
    """Which patches are still needed once the shim has been applied, twice."""
    cpu_shim.apply()
    cpu_shim.apply()
    assert torch.cuda.current_device() == torch.device("cpu")
    return {name for name, needed in cpu_shim.pending().items() if needed}


Drawn = tuple[np.ndarray, np.ndarray]


def draws_of_two_ranks() -> tuple[np.ndarray, tuple[Drawn, Drawn], Drawn]:
    """What torch draws without the shim; what tensor ranks 0 and 1 draw outside and inside of theirs; 0 once more."""
    torch.manual_seed(7)
    plain = torch.rand(6).view(2, 3).numpy()
    return plain, (drawn(0), drawn(1)), drawn(0)


def drawn(tp_rank: int) -> Drawn:
    """Two draws outside of a tensor rank's random state, and two inside, in turns."""
    rng_states.seed(7, tp_rank)
    outside, inside = [], []
    for _ in range(2):
        outside.append(torch.rand(3))
        with random.get_cuda_rng_tracker().fork():
            inside.append(torch.rand(3))
    return torch.stack(outside).numpy(), torch.stack(inside).numpy()


def apply_to_another_version() -> tuple[str, bool]:
    """What the shim says to another version of Megatron, and whether it has patched it."""
    megatron.core.__version__ = "0.17.0"
    before = torch.cuda.current_device
    try:
        cpu_shim.apply()
    except RuntimeError as refused:
        return str(refused), torch.cuda.current_device is not before
    return "it was applied", True


def fails_without(folder: Path, batch: Batch) -> dict[str, str]:
    """For each patch the first of `WAYS` that fails when that patch alone is taken back, or ""."""
    for way in WAYS:
        assert trains(folder, batch, way), f"{way} fails with all patches"
    found = {}
    for name, without in patches().items():
        with without():
            found[name] = next((way for way in WAYS if not trains(folder, batch, way)), "")
    return found


def trains(folder: Path, batch: Batch, way: str) -> bool:
    """Whether an engine can be built and take a step, and leaves nothing to be done once there is CUDA."""
    layout, options = WAYS[way]
    try:
        made = rank_functions.trainer(folder, layout, **options)
        mine = batch.select(engine_reference.rows_of(layout, made.groups.at.dp, len(batch)))
        waiting = len(torch.cuda._queued_calls)
        return (
            made.train(mine, engine_reference.weighted(mine, [])).applied and len(torch.cuda._queued_calls) == waiting
        )
    except (AssertionError, AttributeError, RuntimeError, TypeError):
        return False


def patches() -> dict[str, Callable[[], Any]]:
    """Each patch by what it replaces: a context in which it is not there."""
    found: dict[str, Callable[[], Any]] = {}
    for spec in cpu_shim.WITH_LITERALS:
        function, code = cpu_shim._function(spec), code_of(spec)
        found[spec] = lambda function=function, code=code: swapped(function, "__code__", code)
    for spec in cpu_shim.WITH_CUDA_CALLS:
        module, _, path = spec.partition(":")
        owner, name = path.split(".")
        owner = getattr(importlib.import_module(f"megatron.core.{module}"), owner)
        original = getattr(owner, name).__wrapped__
        found[spec] = lambda owner=owner, name=name, original=original: swapped(owner, name, original)
    fresh = pristine("tensor_parallel.random")
    for name in ("CudaRNGStatesTracker", "_get_cuda_rng_state", "_set_cuda_rng_state"):
        found[name] = lambda name=name: swapped(random, name, getattr(fresh, name))
    for name in ("current_device", "synchronize"):  # both begin so in a torch without CUDA
        found[name] = lambda name=name: swapped(torch.cuda, name, lambda *_: torch.cuda._lazy_init())
    return found


def needs_the_buffer(folder: Path, batch: Batch) -> str:
    """What Megatron says under sequence parallelism where nobody made its scratch buffer."""
    made = rank_functions.trainer(folder, Layout(2), reference.SETTINGS, sequence=True)
    with swapped(parallel_state, "_GLOBAL_MEMORY_BUFFER", None):
        try:
            made.train(batch, engine_reference.weighted(batch, []))
        except AssertionError as error:
            return str(error)
    return ""


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """The attribute has that value meanwhile."""
    was = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, was)


def code_of(spec: str) -> Any:
    """The code of a patched function, as Megatron has it."""
    module, _, path = spec.partition(":")
    found: Any = pristine(module)
    for part in path.split("."):
        found = found.__dict__[part]
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    return found.__code__


def pristine(module: str) -> ModuleType:
    """A second, unpatched copy of a module of Megatron-core."""
    patched = importlib.import_module(f"megatron.core.{module}")
    spec = importlib.util.spec_from_file_location(f"{patched.__name__}_again", patched.__file__)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
