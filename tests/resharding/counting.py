"""A process group that counts what its collectives move."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Done:
    """A collective that has ended."""

    def wait(self) -> None:
        """Nothing is left to wait for."""


class CountingGroup(dist.ProcessGroup):
    """Hands every collective on, and counts the bytes of payload that come to this rank and that go out of it.

    It has no other collective than those that a transition may use. What reaches n ranks counts n times as sent.
    The group below works on copies and is waited for: gloo's threads hold what they worked on for a moment longer than
    the work lasts, and who counts what is alive must not see that.
    """

    def __init__(self, inner: dist.ProcessGroup) -> None:
        super().__init__(inner.rank(), inner.size())
        self.inner = inner
        self.received = self.sent = self.messages = 0

    def all_gather_single(self, output: Tensor, given: Tensor, options: Any) -> Done:
        self.messages += 1
        self.received += output.nbytes - given.nbytes
        self.sent += given.nbytes * (self.inner.size() - 1)
        copy = torch.empty_like(output)
        self.inner.all_gather_single(copy, given.clone(), options).wait()
        output.copy_(copy)
        return Done()

    def broadcast(self, tensors: list[Tensor], options: Any) -> Done:
        [tensor] = tensors
        self.messages += 1
        if options.rootRank == self.inner.rank():
            self.sent += tensor.nbytes * (self.inner.size() - 1)
        else:
            self.received += tensor.nbytes
        copy = tensor.clone()
        self.inner.broadcast([copy], options).wait()
        tensor.copy_(copy)
        return Done()

    def allreduce(self, tensors: list[Tensor], options: Any) -> dist.Work:
        """Of fingerprints: no weight travels."""
        assert {tensor.dtype.is_floating_point for tensor in tensors} == {False}
        return self.inner.allreduce(tensors, options)
