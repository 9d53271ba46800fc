"""vLLM's process groups on our ranks.

vLLM numbers its ranks replica by replica, stage by stage, tensor rank by tensor rank. Ours hold those places by
coordinates (`Layout.generation_coordinate`), so its groups are strided in our numbers. All its groups are made through
one function, and renumbering what that is given puts them where they belong.

Patch: `vllm.distributed.parallel_state.init_model_parallel_group` (vLLM 0.32), only while an engine is built. It goes
away when the external launcher takes a rank map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hybridflow.parallel.layout import Layout


def rank_map(layout: Layout) -> list[int]:
    """Our rank for each of vLLM's."""
    at = [layout.generation_coordinate(rank) for rank in range(layout.size)]
    return sorted(range(layout.size), key=lambda rank: (at[rank].dp, at[rank].pp, at[rank].tp))


@contextmanager
def strided_groups(layout: Layout) -> Iterator[None]:
    """While it is entered, vLLM's groups are made of the ranks that our generation view says."""
    from vllm.distributed import parallel_state

    original, ours = parallel_state.init_model_parallel_group, rank_map(layout)

    def mapped(group_ranks: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        return original([[ours[rank] for rank in group] for group in group_ranks], *args, **kwargs)

    parallel_state.init_model_parallel_group = mapped
    try:
        yield
    finally:
        parallel_state.init_model_parallel_group = original


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
