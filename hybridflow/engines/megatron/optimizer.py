"""Megatron's DDP, optimizer and learning-rate schedule for one role."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import megatron.core.optimizer as megatron_optimizer
import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from hybridflow.config.schema import OptimizerConfig
from hybridflow.engines.learning_rate import learning_rate
from hybridflow.engines.outputs import StepResult
from hybridflow.parallel.platform import platform


class MegatronOptimizer:
    """AdamW over the gradients of a model wrapped for data parallelism.

    Attributes:
        model: the wrapped model; train with this one.
        inner: Megatron's optimizer.
        distributed: whether data parallel ranks share out its state.
        overlaps: whether gradients can be reduced while a backward pass still makes others.
        schedule: of the learning rate and of weight decay; it counts the steps that were tried.
    """

    def __init__(
        self,
        model: GPTModel,
        config: TransformerConfig,
        settings: OptimizerConfig,
        collection: ProcessGroupCollection,
        total_steps: int,
    ) -> None:
        self.model = DistributedDataParallel(
            config,
            DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                use_distributed_optimizer=settings.distributed,
                # `overlap_param_gather` is off everywhere: after a step the next to read the weights is a refit, an
                # export or the move to host memory, which want all at once, and no forward pass to gather them behind.
                **ddp_options(),
            ),
            model,
            pg_collection=collection,
        )
        # Beside TransformerEngine or Apex Megatron would take their Adam, whose state checkpoints do not know.
        megatron_optimizer.USING_PYTORCH_OPTIMIZER = True
        self.inner = get_megatron_optimizer(
            MegatronOptimizerConfig(
                optimizer="adam",
                lr=settings.lr,
                min_lr=settings.min_lr,
                weight_decay=settings.weight_decay,
                adam_beta1=settings.beta1,
                adam_beta2=settings.beta2,
                adam_eps=settings.eps,
                clip_grad=settings.clip_grad,
                bf16=config.bf16,
                params_dtype=config.params_dtype,
                use_distributed_optimizer=settings.distributed,
            ),
            [self.model],
            use_gloo_process_groups=False,
            pg_collection=collection,
        )
        for one in self.inner.chained_optimizers:
            for group in one.optimizer.param_groups:
                group.update(step_options())
        self._collection = collection
        self._clip = settings.clip_grad
        self.distributed = settings.distributed
        self.overlaps = self.model.ddp_config.overlap_grad_reduce
        self.schedule = Schedule(self.inner, settings, total_steps)
        config.grad_scale_func = self.inner.scale_loss
        config.finalize_model_grads_func = _finalize
        config.no_sync_func = self.model.no_sync

    def clear(self) -> None:
        """Set all gradients to zero."""
        self.model.zero_grad_buffer()
        self.inner.zero_grad()

    def overlap(self, allowed: bool) -> None:
        """Say of the step to come whether its gradients may be reduced during its last backward pass.

        All data parallel ranks must have rows in it. Buckets are reduced in the order in which a backward pass
        finishes them, which it remembers from the first such step; a rank that has none does not know the order.
        """
        self.model.ddp_config.overlap_grad_reduce = self.overlaps and allowed

    def step(self) -> StepResult:
        """Clip, update, move the schedule on. A gradient that is not finite leaves weights and state as they were."""
        self.schedule.step(1)  # also if this one is skipped: a run ends where its schedule does
        lr = self.inner.param_groups[0]["lr"]
        # The parts of Megatron's own step, which looks for such a gradient only where it scales a loss in fp16.
        self.inner.prepare_grads()
        norm = float(self.inner.get_grad_norm())
        applied = self._all_finite(norm)
        if applied:
            if self._clip > 0:
                clip_grad_by_total_norm_fp32(self.inner.get_parameters(), self._clip, norm)
            self.inner.step_with_ready_grads()
        return StepResult(applied, norm, float(lr))

    def _all_finite(self, norm: float) -> bool:
        """Tell, on all ranks alike, whether the gradients of all of them are finite.

        The norm is that of the whole model, but what tensor ranks hold alike, it takes from one of them; a number that
        is not finite in another's copy would go into that copy of the weight.
        """
        somewhere = torch.tensor(float(not math.isfinite(norm)), device=platform().device)
        for gradient in self.gradients():  # no answer is waited for before the last: each would stall a GPU
            broken = torch.isfinite(torch.stack(gradient.aminmax())).all().logical_not()
            somewhere = torch.maximum(somewhere, broken.to(somewhere))
        dist.all_reduce(somewhere, dist.ReduceOp.MAX, group=self._collection.intra_dist_opt)  # all ranks of the role
        return not somewhere.item()

    def state(self) -> Iterator[Tensor]:
        """Master weights and moments of this rank; with a model in float32, the weights themselves are among them."""
        for optimizer in self.inner.chained_optimizers:
            for group in optimizer.optimizer.param_groups:
                yield from group["params"]
            for moments in optimizer.optimizer.state.values():
                yield from (value for value in moments.values() if isinstance(value, Tensor))

    def gradients(self) -> list[Tensor]:
        """Return the memory of gradients. Between `step` and `clear` nobody reads it."""
        return [buffer.grad_data for buffer in (*self.model.buffers, *self.model.expert_parallel_buffers)]

    def finish_empty(self) -> None:
        """Join the gradient reduction, not overlapped, of a step for which this data-parallel rank has no rows."""
        finalize_model_grads([self.model], None, pg_collection=self._collection)


def ddp_options() -> dict[str, Any]:
    """Return settings of Megatron's DDP that only one kind of hardware has: gloo does not reduce beside a backward."""
    return {"overlap_grad_reduce": platform().accelerated}


def step_options() -> dict[str, Any]:
    """Return settings of torch's AdamW that only one kind of hardware has.

    A CPU takes a step in one pass over its numbers, where torch's default passes over them ten times. On a GPU that
    default steps all parameters together; torch leaves it as soon as `fused` is set, to False too.
    """
    return {} if platform().accelerated else {"fused": True}


def _finalize(model: list[torch.nn.Module], num_tokens: Any, **options: Any) -> None:
    """Reduce gradients, and do not divide: the losses are weighted globally already."""
    finalize_model_grads(model, None, **options)


class Schedule(OptimizerParamScheduler):
    """Megatron's schedule with our rates, which are none of its own: its last update has `min_lr`.

    Weight decay is set to zero on biases and norms by this schedule, so it is needed with a constant rate too.

    Attributes:
        num_steps: updates that were tried, the coming one too once `step` was called for it.
    """

    def __init__(self, inner: Any, settings: OptimizerConfig, updates: int) -> None:
        self._settings = settings
        self._updates = updates
        super().__init__(
            inner,
            init_lr=0.0,
            max_lr=settings.lr,
            min_lr=settings.min_lr,
            lr_warmup_steps=settings.warmup_steps,
            lr_decay_steps=max(updates, settings.warmup_steps + 1),
            lr_decay_style=settings.decay.value,
            start_wd=settings.weight_decay,
            end_wd=settings.weight_decay,
            wd_incr_steps=0,
            wd_incr_style="constant",
        )

    def get_lr(self, param_group: dict[str, Any]) -> float:
        """Return the rate of the update that was counted last; before the first, that of the first."""
        return learning_rate(max(self.num_steps - 1, 0), self._settings, self._updates)
