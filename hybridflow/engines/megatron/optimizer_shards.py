"""Optimizer shard of a parameter on this rank, in one form for all of Megatron-core's optimizers.

Without a distributed optimizer every data parallel rank holds all of it; with one, each holds a part of the flattened
parameter. `gather` and `OptimizerShard.fill` go between that part and the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor, nn

from hybridflow.parallel.platform import platform


@dataclass(frozen=True)
class OptimizerShard:
    """Part of a parameter.

    Attributes:
        span: [a, b) of the flattened parameter.
        main: the float32 weights of that part, which the optimizer updates.
        adam: AdamW's own state of it: `step`, `exp_avg`, `exp_avg_sq`; empty before the first step.
    """

    span: tuple[int, int]
    main: Tensor
    adam: dict[str, Tensor]

    def fill(self, name: str, whole: Tensor) -> None:
        """Take this part of a whole parameter's weights (`main`) or of one of its moments."""
        a, b = self.span
        mine = whole.flatten()[a:b].view(self.main.shape)
        if name == "main":
            self.main.data.copy_(mine)
        else:
            self.adam[name] = mine.to(self.main.device, copy=True)


def is_distributed(inner: ChainedOptimizer) -> bool:
    """Tell whether each data parallel rank has a part only."""
    return any(isinstance(optimizer, DistributedOptimizer) for optimizer in inner.chained_optimizers)


def shard_of(inner: ChainedOptimizer, param: nn.Parameter) -> OptimizerShard | None:
    """Return this rank's part of a parameter; None if it has nothing of it. Raises TypeError for another optimizer."""
    (optimizer,) = inner.chained_optimizers
    torch_optimizer: Any = optimizer.optimizer
    if not isinstance(torch_optimizer, torch.optim.AdamW):
        raise TypeError(f"checkpoints know the state of torch.optim.AdamW; the optimizer is a {type(torch_optimizer)}")
    if not isinstance(optimizer, DistributedOptimizer):
        main = getattr(param, "main_param", param)
        return OptimizerShard((0, param.numel()), main, torch_optimizer.state[main])
    if param not in optimizer.model_param_group_index_map:
        return None
    group, place = optimizer.model_param_group_index_map[param]
    span = optimizer._get_model_param_range_map(param)["param"]
    main = torch_optimizer.param_groups[group]["params"][place]
    return OptimizerShard((span.start, span.end), main, torch_optimizer.state[main])


def gather(part: Tensor | None, span: tuple[int, int], shape: torch.Size, owner: int, group: Any) -> Tensor | None:
    """Gather a parameter-shaped float32 tensor whole on rank `owner` of the group; return None on the others.

    All ranks of the group call it, each with its part, or with None if it has none. The parts do not overlap; their
    bits are added, as integers, so that they arrive unchanged.
    """
    device = platform().device if part is None else part.device
    bits = torch.zeros(shape.numel(), dtype=torch.int32, device=device)
    if part is not None:
        bits[span[0] : span[1]] = part.detach().flatten().view(torch.int32)
    dist.reduce(bits, group=group, group_dst=owner)
    return bits.view(torch.float32).view(shape) if dist.get_rank(group) == owner else None
