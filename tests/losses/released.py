"""Losses of released code, called and not copied: TRL's trainers without a model, and RLlib's GAE.

A trainer of TRL is made without its `__init__`, which wants a model, data and a folder; it gets the attributes that
its loss reads, and nothing of it is replaced but what generates, grades and scores: log-probs come from a table.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor


class Table(torch.nn.Module):
    """A model that answers with the log-probs that it was made of, [B, C] for C completion tokens."""

    is_gradient_checkpointing = False

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__()
        self.log_probs = torch.nn.Parameter(log_probs.clone())

    def forward(self, **_: Any) -> SimpleNamespace:
        """What TRL's language models give where they do not make the logits."""
        nothing = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


@cache
def trl() -> SimpleNamespace:
    """TRL's trainers, from beside the environment, where `make setup` puts them, or from it.

    They are imported without vLLM, which they do not need for a loss and which takes half a minute, and without the
    trackers.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(sys.prefix) / "parity"))
        for name in ("vllm", "mlflow", "wandb"):
            if name not in sys.modules:
                patch.setitem(sys.modules, name, None)
        from accelerate import Accelerator
        from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer

        found = {cls.__name__: cls for cls in (DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer)}
    return SimpleNamespace(**found, accelerator=Accelerator(cpu=True))


def trainer(name: str, model: torch.nn.Module, **settings: Any) -> Any:
    """TRL's trainer of that name with these attributes, one process and one micro-batch a step."""
    made = object.__new__(getattr(trl(), name))
    shared = dict(
        accelerator=trl().accelerator, model=model, aux_loss_enabled=False, current_gradient_accumulation_steps=1,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    made.__dict__.update(shared | settings)
    return made


# What the trainers of samples read beside the settings of a test; the values are those that switch everything off.
SAMPLING = dict(
    top_entropy_quantile=1.0, off_policy_mask_threshold=None, _entropy_bonus_enabled=False, use_vllm=False,
    vllm_importance_sampling_correction=False, environment_factories=None, environments=None, tools=None, _is_vlm=False,
    pad_to_multiple_of=None, mask_truncated_completions=False, num_iterations=1, log_multimodal=False,
    multi_objective_aggregation="sum_then_normalize", reward_clip_range=None, normalize_advantages=False,
    reward_func_names=["reward"], reward_funcs=[None], reward_weights=torch.ones(1), ref_model=None, beta=0.0,
    importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.2,
)  # fmt: skip
ARGS = dict(
    use_bias_correction_kl=False, delta=None, steps_per_generation=1, gradient_accumulation_steps=1, report_to=[],
    gradient_checkpointing_kwargs=None, per_device_train_batch_size=10**6,
)  # fmt: skip


def sampler(name: str, model: torch.nn.Module, **settings: Any) -> Any:
    """`GRPOTrainer` or `RLOOTrainer`."""
    logs = {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": {}}
    own = dict(_logs=logs, _pending_extra_logs={}, _pending_metrics={}, _tokenizer=SimpleNamespace(pad_token_id=0))
    return trainer(name, model, **SAMPLING | own | {"args": SimpleNamespace(**ARGS)} | settings)


def scored(made: Any, lengths: list[int], rewards: Tensor, sampler_log_probs: Tensor | None = None) -> dict[str, Any]:
    """What the trainer makes of rows of these lengths [B] and rewards [B]: its `_generate_and_score_completions`.

    Args:
        sampler_log_probs: [B, C], what the engine that generates says of the tokens.
    """
    prompts, completions = [[1]] * len(lengths), [[2] * length for length in lengths]
    sampled = None
    if sampler_log_probs is not None:
        sampled = [row[:length].tolist() for row, length in zip(sampler_log_probs, lengths, strict=True)]
    texts = [""] * len(lengths)
    answers = {
        "GRPOTrainer": (prompts, completions, None, texts, sampled, {}, None, []),
        "RLOOTrainer": (prompts, completions, texts),
    }
    made._generate = lambda _: answers[type(made).__name__]
    made._calculate_rewards = lambda *_: rewards[:, None]
    return made._generate_and_score_completions([{"prompt": ""}] * len(lengths))


def loss(made: Any, lengths: list[int], **columns: Tensor) -> Tensor:
    """The trainer's loss of rows of these lengths, by its model's table."""
    mask = mask_of(lengths)
    prompts = torch.ones(len(lengths), 1, dtype=torch.int64)
    total = torch.tensor(sum(lengths))
    given = {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": mask.long(),
        "completion_mask": mask.long(),
    }
    return made.compute_loss(made.model, given | {"num_items_in_batch": total} | columns)


def mask_of(lengths: list[int]) -> Tensor:
    """[B, C] bool: where a padded row has tokens."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@cache
def rllib_gae() -> Callable[..., Any]:
    """RLlib's value targets. The module is read by itself: its package wants gymnasium, which it does not use."""
    ray = util.find_spec("ray")
    assert ray is not None and ray.origin is not None
    path = Path(ray.origin).parent / "rllib/utils/postprocessing/value_predictions.py"
    spec = util.spec_from_file_location("rllib_value_predictions", path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_value_targets
