"""A process group that counts what its collectives move."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


class CountingGroup(dist.ProcessGroup):
    """Hands every collective on, and counts the bytes of payload that come to this rank and that go out of it.

    It has no other collective than those that a transition may use. What reaches n ranks counts n times as sent.
    """

    def __init__(self, inner: dist.ProcessGroup) -> None:
        super().__init__(inner.rank(), inner.size())
        self.inner = inner
        self.received = self.sent = self.messages = 0

    def all_gather_single(self, output: Tensor, given: Tensor, options: Any) -> dist.Work:
        self.messages += 1
        self.received += output.nbytes - given.nbytes
        self.sent += given.nbytes * (self.inner.size() - 1)
        return self.inner.all_gather_single(output, given, options)

    def broadcast(self, tensors: list[Tensor], options: Any) -> dist.Work:
        [tensor] = tensors
        self.messages += 1
        if options.rootRank == self.inner.rank():
            self.sent += tensor.nbytes * (self.inner.size() - 1)
        else:
            self.received += tensor.nbytes
        return self.inner.broadcast(tensors, options)

    def allreduce(self, tensors: list[Tensor], options: Any) -> dist.Work:
        """Of checksums: no weight travels."""
        assert {tensor.dtype.is_floating_point for tensor in tensors} == {False}
        return self.inner.allreduce(tensors, options)
