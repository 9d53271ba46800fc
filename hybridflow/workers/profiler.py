"""The profiler on one rank: products, attention, memory and collectives, by the platform's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import scaled_dot_product_attention

from hybridflow.batch import Batch, Ragged
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import make_groups
from hybridflow.roles.profiler import ProfilerRole, Timed
from hybridflow.workers.model_worker import torch_dtype
from hybridflow.workers.worker import PROFILER, Context, Worker, workers

TRIES = 5
LEAST_S = 1e-7  # of a message, which is a difference of two times
AT_LEAST_S = 0.002  # that a try takes: shorter pieces of work are repeated, or a clock's own time would count


@workers.register(PROFILER)
class ProfilerWorker(ProfilerRole[Batch], Worker):
    """Rank that measures."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.groups = make_groups(context.layout, context.config.trainer.collective_timeout_s)

    def products(self, dtype: str, sizes: Sequence[tuple[int, int, int]]) -> Timed:
        def product(m: int, k: int, n: int) -> Callable[[], object]:
            left = _random(m, k, dtype=dtype)
            right = _random(n, k, dtype=dtype).T  # as a layer's weight lies in memory
            return lambda: left @ right

        return [[*size, _seconds(product(*size))] for size in sizes]

    def attention(self, sizes: Sequence[tuple[int, int, int, int]]) -> Timed:
        def attend(rows: int, heads: int, tokens: int, width: int) -> Callable[[], object]:
            q, k, v = (_random(rows, heads, tokens, width) for _ in range(3))
            return lambda: scaled_dot_product_attention(q, k, v, is_causal=True)

        with torch.no_grad():
            return [[*size, _seconds(attend(*size))] for size in sizes]

    def copies(self, sizes: Sequence[int]) -> Timed:
        def copy(size: int) -> Callable[[], object]:
            source = torch.ones(size, dtype=torch.uint8, device=platform().device)
            target = torch.empty_like(source)
            return lambda: target.copy_(source)

        return [[size, _seconds(copy(size))] for size in sizes]

    def collectives(self, kind: str, ranks: int, sizes: Sequence[int]) -> Timed:
        group = self.groups.make.maybe([range(ranks)])
        if group is None:
            return []
        beside = _beside()
        alone = _seconds(beside, group=group)
        timed = []
        for size in sizes:
            both = _seconds(_one_then(beside, _collective(kind, group, ranks, size)), group=group)
            timed.append([size, max(both - alone, LEAST_S)])
        return timed

    def together(self, ranks: int) -> float:
        group = self.groups.make.maybe([range(ranks)])
        if group is None:
            return 0.0
        left = _random(1024, 256)
        right = _random(256, 256)

        def work() -> None:
            value = left
            for _ in range(50):  # products, and what caches must hold between them, as in a layer
                value = torch.tanh(value @ right)

        dist.barrier(group)
        return _seconds(work, at_least_s=0.0)

    def nothing(self) -> None:
        return None

    def sample(self, prompts: Batch) -> Batch:
        return Batch(response_ids=prompts.ragged("prompt_ids"))

    def score(self, rows: Batch) -> Batch:
        responses = rows.ragged("response_ids")
        return Batch(values=Ragged.of([np.zeros(int(length), dtype=np.float32) for length in responses.lengths]))

    def learn(self, rows: Batch) -> None:
        return None


def _beside() -> Callable[[], object]:
    """Return what ranks do between two messages, as a layer does: none of them is then there at the same moment."""
    left = _random(256, 256)
    return lambda: left @ left


def _one_then(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    def both() -> None:
        first()
        second()

    return both


def _collective(kind: str, group: dist.ProcessGroup, ranks: int, size: int) -> Callable[[], object]:
    """Return a piece of work in which each rank has so many bytes in the end, or sends them to the next."""
    whole = torch.ones(max(size // 4, ranks), device=platform().device)
    if kind == "all_reduce":
        return lambda: dist.all_reduce(whole, group=group)
    part = whole[: len(whole) // ranks].clone()
    if kind == "all_gather":
        gathered = torch.empty(len(part) * ranks, device=platform().device)
        return lambda: dist.all_gather_into_tensor(gathered, part, group=group)
    if kind != "send":
        raise ValueError(f"collective {kind!r}: all_reduce, all_gather or send was expected")
    at = dist.get_rank(group)
    other = dist.get_global_rank(group, at ^ 1)

    def send() -> None:
        if at % 2:
            dist.recv(whole, other, group=group)
        elif at + 1 < ranks:
            dist.send(whole, other, group=group)

    return send


def _random(*size: int, dtype: str = "float32") -> torch.Tensor:
    return torch.randn(size, device=platform().device).to(torch_dtype(dtype))


def _seconds(
    work: Callable[[], object], *, group: dist.ProcessGroup | None = None, at_least_s: float = AT_LEAST_S
) -> float:
    """Return the median of a few tries; the ranks of a group try equally often."""
    first = _once(work, 1)
    repeats = max(1, int(at_least_s / max(first, 1e-7)))
    if group is not None:
        common = torch.tensor(repeats, device=platform().device)
        dist.all_reduce(common, dist.ReduceOp.MAX, group=group)
        repeats = min(int(common), 200)
    return median(_once(work, repeats) for _ in range(TRIES))


def _once(work: Callable[[], object], repeats: int) -> float:
    platform().synchronize()
    began = perf_counter()
    for _ in range(repeats):
        work()
    platform().synchronize()
    return (perf_counter() - began) / repeats
