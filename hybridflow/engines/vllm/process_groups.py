"""vLLM's process groups on our ranks.

vLLM numbers its ranks replica by replica, stage by stage, tensor rank by tensor rank. Ours hold those places by
coordinates (`Layout.generation_coordinate`), so its groups are strided in our numbers. All its groups are made through
one function, and renumbering what that is given puts them where they belong.

On a CPU the ranks of a group also meet in shared memory. vLLM names it after the init method, which with the external
launcher is the same for all: two engines on a machine would clash, and one that is killed would leave a name behind on
which all later ones fail. Ours has a name of its own, which is taken away as soon as all have joined.

Patch: `vllm.distributed.parallel_state.init_model_parallel_group` (vLLM 0.32), only while an engine is built. It goes
away when the external launcher takes a rank map and names its shared memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from hybridflow.parallel.layout import Layout

SHARED_MEMORY = Path("/dev/shm")


def rank_map(layout: Layout) -> list[int]:
    """Return our rank for each of vLLM's."""
    at = [layout.generation_coordinate(rank) for rank in range(layout.size)]
    return sorted(range(layout.size), key=lambda rank: (at[rank].dp, at[rank].pp, at[rank].tp))


@contextmanager
def strided_groups(layout: Layout) -> Iterator[None]:
    """Let vLLM make its groups of the ranks that our generation view says. All ranks enter it."""
    from vllm.distributed import parallel_state

    original = parallel_state.init_model_parallel_group
    ours = rank_map(layout)
    name = _agreed_name()

    def mapped(group_ranks: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        os.environ["VLLM_DIST_IDENT"] = name
        made = original([[ours[rank] for rank in group] for group in group_ranks], *args, **kwargs)
        _forget_shared_memory(made)
        return made

    parallel_state.init_model_parallel_group = mapped
    try:
        yield
    finally:
        parallel_state.init_model_parallel_group = original


def _agreed_name() -> str:
    name = [f"hybridflow-{uuid4().hex}"]
    dist.broadcast_object_list(name)
    return name[0]


def _forget_shared_memory(group: Any) -> None:
    """Unlink shared memory, which all of a group have mapped once it is made; it goes with the last of them."""
    if shared := getattr(getattr(group.device_communicator, "dist_module", None), "group_name", None):
        (SHARED_MEMORY / f"{shared}_{group.rank_in_group}").unlink(missing_ok=True)


def give_stage_inputs(worker: Any) -> None:
    """Make the buffers in which a later pipeline stage takes what the one before it computed; run it on each worker.

    vLLM 0.32 makes them in a warm-up run that it leaves out without CUDA graphs; this goes away when it does not.
    """
    from vllm.distributed import parallel_state

    runner = worker.model_runner
    if not parallel_state.get_pp_group().is_first_rank and runner.intermediate_tensors is None:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.dtype, device=runner.device
        )
