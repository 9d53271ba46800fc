"""vLLM's question of what a model class can do, asked in the process that will run it.

vLLM 0.32 asks another process, which imports all of vLLM for it, so that CUDA is not initialized in a process that may
fork. Its answers are kept in a file of the user's; in a new container or for another kind of model each rank would
start such a process, which takes as long as its own start. Ranks do not fork, and their device is in use already.

Patch: `vllm.model_executor.models.registry._run_in_subprocess` (vLLM 0.32), only while an engine is built. It goes away
when vLLM asks where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def inspected_here() -> Iterator[None]:
    """Let vLLM look at a model's class in this process."""
    from vllm.model_executor.models import registry

    original = registry._run_in_subprocess
    registry._run_in_subprocess = here
    try:
        yield
    finally:
        registry._run_in_subprocess = original


def here(ask: Callable[[], T]) -> T:
    """Answer at once."""
    return ask()
