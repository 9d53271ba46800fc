"""What only one kind of hardware has: arguments of vLLM's engine, and memory that it frees and takes again."""

from __future__ import annotations

from typing import Any

from hybridflow.config.schema import RolloutConfig
from hybridflow.parallel.platform import platform

CPU_BLOCK = 32  # tokens of a block of the cache: the fewest that its attention takes, as whole blocks are shared alone


def hardware_options(rollout: RolloutConfig, ranks: int) -> dict[str, object]:
    """Return the arguments of vLLM's engine that only one kind of hardware has, for a rank of so many of a replica."""
    if platform().accelerated:
        return {
            "gpu_memory_utilization": rollout.gpu_memory_fraction,
            "enable_sleep_mode": True,
            # It looks up its neighbors by their number among the GPUs that this process sees: one, under Ray.
            "disable_custom_all_reduce": True,
        }
    return {
        "kv_cache_memory_bytes": int(rollout.kv_cache_gib * 2**30 / ranks),  # which share out heads and layers
        # After a part of a prompt vLLM winds the row's random numbers back, which a CPU's generators cannot do.
        "enable_chunked_prefill": False,
        "block_size": CPU_BLOCK,
    }


def fall_asleep(llm: Any) -> bool:
    """Free the memory of a `vllm.LLM`'s weights and KV cache; return whether their contents are lost.

    A CPU has one memory, so everything stays there. Level 2 keeps no copy: an update gives new weights anyway.
    """
    if platform().accelerated:
        llm.sleep(level=2)
    return platform().accelerated


def wake(llm: Any, part: str) -> None:
    """Take memory for "weights" or "kv_cache" again, if it was freed; the weights first. It holds nothing yet.

    Raises RuntimeError if vLLM still sleeps when it has both: it would then wait for ever.
    """
    if platform().accelerated and llm.wake_up(tags=[part]) is False and part == "kv_cache":
        raise RuntimeError("vLLM did not wake up, though it was given memory for its weights and its KV cache")
