"""The CPU shim: every patch is still needed, on this version of Megatron-core only, and on a CPU only."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.conftest import GetModel
from tests.engines import reference
from tests.engines.megatron import shim_rank_functions
from tests.spmd import Ranks

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the shim is not used beside a GPU")


def fresh(code: str) -> str:
    """What a process of its own prints: the shim patches a process for good."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@on_a_cpu
def test_every_patch_is_still_needed_and_none_is_applied_beside_a_gpu() -> None:
    """When this fails, take the named patch out of the shim.

    The engine believes that there is a GPU, and gets as far as its random states, which are seeded after the shim.
    """
    code = """
import json, torch
from types import SimpleNamespace
from hybridflow.engines.megatron import cpu_shim
from hybridflow.engines.megatron.engine import MegatronEngine
torch.cuda.is_available = lambda: True
try:
    MegatronEngine("nowhere", SimpleNamespace(at=SimpleNamespace(tp=0)), dtype=torch.float32, budget=1)
except AssertionError as asked:
    assert "CUDA" in str(asked), asked
print(json.dumps(cpu_shim.pending()))
"""
    pending = json.loads(fresh(code))
    assert len(pending) == 15
    assert [name for name, needed in pending.items() if not needed] == []


@on_a_cpu
@pytest.mark.ranks
def test_training_fails_without_any_one_of_the_patches(ranks2: Ranks, tiny: GetModel) -> None:
    """The one above says that Megatron asks for CUDA there; this one that we come by."""
    folder = tiny(architecture="qwen2", vocab=70, tied=True)
    for found in ranks2.run(shim_rank_functions.fails_without, folder, reference.rows(70)):
        assert len(found) == 15
        assert [name for name, way in found.items() if not way] == []


@pytest.mark.ranks
def test_the_scratch_buffer_is_still_ours_to_make(ranks2: Ranks, tiny: GetModel) -> None:
    """On every platform, since we make no global groups. When this fails, take it out of `build_model`."""
    folder = tiny(architecture="qwen2", vocab=70, tied=True)
    said = ranks2.run(shim_rank_functions.needs_the_buffer, folder, reference.rows(70))
    assert said == ["global memory buffer is not initialized"] * 2


@on_a_cpu
def test_after_the_shim_nothing_is_needed_and_states_are_kept_apart() -> None:
    code = """
import torch
from hybridflow.engines.megatron import cpu_shim, rng_states
cpu_shim.apply(); cpu_shim.apply()
left = {name for name, needed in cpu_shim.pending().items() if needed}
assert left <= set(cpu_shim.WITH_CUDA_CALLS), left
assert torch.cuda.current_device() == torch.device("cpu")
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
def drawn(tp_rank):
    rng_states.seed(7, tp_rank)
    outside = torch.rand(3)
    with get_cuda_rng_tracker().fork():
        inside = [torch.rand(3)]
    more = torch.rand(3)
    with get_cuda_rng_tracker().fork():
        inside.append(torch.rand(3))
    return torch.stack([outside, more]), torch.stack(inside)
torch.manual_seed(7)
plain = torch.rand(6).view(2, 3)
(a_out, a_in), (b_out, b_in) = drawn(0), drawn(1)
assert torch.equal(a_out, plain) and torch.equal(b_out, plain), "what is drawn inside must not be seen outside"
assert not torch.equal(a_in, b_in) and not torch.equal(a_in[0], a_in[1])
assert all(torch.equal(x, y) for x, y in zip(drawn(0), (a_out, a_in)))
print("fine")
"""
    assert fresh(code) == "fine"


def test_another_version_is_refused() -> None:
    code = """
import megatron.core, torch
from hybridflow.engines.megatron import cpu_shim
megatron.core.__version__ = "0.17.0"
before = torch.cuda.current_device
try:
    cpu_shim.apply()
except RuntimeError as refused:
    assert torch.cuda.current_device is before
    print(refused)
"""
    assert fresh(code) == "the CPU shim is for megatron-core 0.16.1; 0.17.0 is installed"
