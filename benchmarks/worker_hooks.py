"""Changes to the workers of a run's ranks, for plugins that let something go wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hybridflow.runtime.rank import Rank


def change_worker(wanted: str, change: Callable[[Any, int], None]) -> None:
    """Change the class of the worker of a role once it is built, on every rank.

    Args:
        change: is given the class, and the rank's number.
    """
    built = Rank.build
    changed: set[type] = set()

    def build(self: Rank, role: str, *arguments: Any) -> bytes:
        report = built(self, role, *arguments)
        worker = self._workers.get(role)
        if role == wanted and worker is not None and type(worker) not in changed:
            changed.add(type(worker))
            change(type(worker), self._rank)
        return report

    Rank.build = build  # type: ignore[method-assign]


@contextmanager
def nan_gradient(engine: Any) -> Iterator[None]:
    """Let the gradient of an engine's first parameter be NaN meanwhile."""
    import torch

    param = next(engine.model.parameters())
    hook = param.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))
    try:
        yield
    finally:
        hook.remove()
