"""Bytes of the tensors that live in a process on a CPU, and the most that they have been.

An operation's results are seen when torch dispatches it, in backward passes too; a storage that several tensors look
into counts once, until the last of them has gone. What a kernel takes for itself while it runs is not seen, nor what is
no tensor: columns of rows, which are numpy's, and weights that oneDNN keeps packed (see `count_packed`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorBytes(TorchDispatchMode):
    """Counter of what is made while it is entered; what was made then counts until it goes, entered or not.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def hold(self, owner: object, size: int) -> None:
        """Count bytes that are no tensor's for as long as their owner lives."""
        self._add(size)
        weakref.finalize(owner, self._take, size)

    @contextmanager
    def phase(self) -> Iterator[dict[str, int]]:
        """Count in the block; fill in what there was before it, and the most that there was in it."""
        found = {"before": self.now}
        self.peak = self.now
        try:
            with self:
                yield found
        finally:
            found["peak"] = self.peak

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if storage.device.type != "cpu" or key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self._add(size)
        weakref.finalize(storage, self._forget, key, size)

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def _take(self, size: int) -> None:
        self.now -= size

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._take(size)


def count_packed(counter: TensorBytes) -> None:
    """Count the weights that vLLM's products have packed by oneDNN, in memory of its own, as the weights' own bytes."""
    import vllm._custom_ops as ops

    make = ops.create_onednn_mm

    def counted(weight: Tensor, *options: Any) -> Any:
        made = make(weight, *options)
        counter.hold(made, weight.nbytes)
        return made

    ops.create_onednn_mm = counted
