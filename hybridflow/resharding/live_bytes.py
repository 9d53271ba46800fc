"""Live bytes of a transition's buffers, and their peak."""

from __future__ import annotations

import weakref

from torch import Tensor


class Alive:
    """Counter of a transition's buffers, each from `watch` until nobody has any view of it, here or in an engine.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0

    def watch(self, buffer: Tensor) -> Tensor:
        """Count a buffer and return it."""
        storage = buffer.untyped_storage()
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)
        return buffer

    def _gone(self, size: int) -> None:
        self.now -= size
