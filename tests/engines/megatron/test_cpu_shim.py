"""The CPU shim: every patch is still needed, on this version of Megatron-core only, and on a CPU only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hybridflow.engines.megatron import cpu_shim
from tests.conftest import GetModel
from tests.engines import reference
from tests.engines.megatron import shim_rank_functions
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the shim is not used beside a GPU")


@pytest.fixture
def fresh() -> Iterator[Ranks]:
    """One rank of this test's own: the shim patches a process for good."""
    made = Ranks(1)
    yield made
    made.stop()


@on_a_cpu
def test_every_patch_is_still_needed_and_none_is_applied_beside_a_gpu(fresh: Ranks) -> None:
    """When this fails, take the named patch out of the shim."""
    [pending] = fresh.run(shim_rank_functions.pending_beside_a_gpu)
    assert len(pending) == 15
    assert [name for name, needed in pending.items() if not needed] == []


@on_a_cpu
def test_training_fails_without_any_one_of_the_patches(ranks2: Ranks, tiny: GetModel) -> None:
    """The one above says that Megatron asks for CUDA there; this one that we come by."""
    folder = tiny(architecture="qwen2", vocab=70, tied=True)
    for found in ranks2.run(shim_rank_functions.fails_without, folder, reference.rows(70)):
        assert len(found) == 15
        assert [name for name, way in found.items() if not way] == []


def test_the_scratch_buffer_is_still_ours_to_make(ranks2: Ranks, tiny: GetModel) -> None:
    """On every platform, since we make no global groups. When this fails, take it out of `build_model`."""
    folder = tiny(architecture="qwen2", vocab=70, tied=True)
    said = ranks2.run(shim_rank_functions.needs_the_buffer, folder, reference.rows(70))
    assert said == ["global memory buffer is not initialized"] * 2


@on_a_cpu
def test_after_the_shim_nothing_is_needed_and_states_are_kept_apart(fresh: Ranks) -> None:
    [left] = fresh.run(shim_rank_functions.pending_after_the_shim)
    assert left <= set(cpu_shim.WITH_CUDA_CALLS)
    [(plain, drawn, again)] = fresh.run(shim_rank_functions.draws_of_two_ranks)
    for outside, _ in drawn:
        assert np.array_equal(outside, plain), "what is drawn inside must not be seen outside"
    (_, first), (_, second) = drawn
    assert not np.array_equal(first, second) and not np.array_equal(first[0], first[1])
    assert all(np.array_equal(x, y) for x, y in zip(again, drawn[0], strict=True))


def test_another_version_is_refused(fresh: Ranks) -> None:
    [(said, patched)] = fresh.run(shim_rank_functions.apply_to_another_version)
    assert said == "the CPU shim is for megatron-core 0.16.1; 0.17.0 is installed" and not patched
