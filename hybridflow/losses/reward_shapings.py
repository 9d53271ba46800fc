"""Reward shaping: what a row's reward becomes before it is compared with others.

A shaping is a function `(inputs, **options) -> [R] rewards` in the registry `reward_shapings`. What it must remember
from step to step it keeps in `inputs.state`, which checkpoints have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from hybridflow.bounds import Bounds, NotNegative, Positive, Share
from hybridflow.config.schema import AlgorithmConfig
from hybridflow.losses.independence import independent
from hybridflow.losses.options import with_options
from hybridflow.registry import Registry


def _alone(vector: Tensor) -> Tensor:
    return vector


@dataclass(frozen=True)
class ShapingInputs:
    """Inputs of a reward shaping.

    Attributes:
        rewards: [R].
        lengths: [R] int64, tokens of each response.
        limit: maximum number of tokens of a response.
        finish_reasons: why each response ended, R of `end`, `stop` and `length`; None: nobody knows.
        state: what this shaping remembers from step to step, numbers by name, the same on all ranks; it changes them
            in place. Empty at the start of a run.
        all_reduce: gives the sum of a small float64 vector over all ranks that have part of the batch. A shaping must
            call it equally often on every rank, one without rows included.
    """

    rewards: Tensor
    lengths: Tensor
    limit: int
    finish_reasons: Sequence[str] | None = None
    state: dict[str, float] = field(default_factory=dict)
    all_reduce: Callable[[Tensor], Tensor] = _alone


RewardShaping = Callable[..., Tensor]
reward_shapings: Registry[RewardShaping] = Registry("reward shaping", of=Callable)
Score = Annotated[float, Bounds(because="scores have the scale of their reward model")]


def shaping(name: str, options: Mapping[str, Any]) -> Callable[[ShapingInputs], Tensor]:
    """Return a reward shaping of a registered name with its options set.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    return with_options(reward_shapings, name, options)


def shapings_of(settings: AlgorithmConfig) -> list[tuple[str, Mapping[str, Any]]]:
    """List the shapings of an algorithm with their options, in the order in which they are applied."""
    return list(shapings_by_key(settings).values())


def shapings_by_key(settings: AlgorithmConfig) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return `shapings_of` by the key of the settings that names each."""
    first = settings.reward_shaping
    own = {"algorithm.reward_shaping": (first.name, first.options)} if first.name != "none" else {}
    several = settings.reward_shapings.items()
    return {**own, **{f"algorithm.reward_shapings.{name}": (name, options or {}) for name, options in several}}


def shape(
    inputs: ShapingInputs, chain: Sequence[tuple[str, Mapping[str, Any]]], states: dict[str, dict[str, float]]
) -> Tensor:
    """Apply shapings one after the other; each has a state of its own, by its name. Raises as `shaping`."""
    for name, options in chain:
        own = states.setdefault(name, {})
        inputs = replace(inputs, rewards=shaping(name, options)(replace(inputs, state=own)))
    return inputs.rewards


@reward_shapings.register("none")
@independent
def none(inputs: ShapingInputs) -> Tensor:
    """Return the rewards unchanged."""
    return inputs.rewards


@reward_shapings.register("overlong")
@independent
def overlong(inputs: ShapingInputs, *, buffer: Share = 0.2, penalty: NotNegative = 1.0) -> Tensor:
    """Subtract a penalty that grows over the last tokens before the limit: 0 up to L - c, 1 at L.

    Source: DAPO's soft overlong punishment, arXiv 2503.14476, equation 13: (L - c - |y|) / c in between, -1 beyond L.

    Args:
        inputs: `limit` is L.
        buffer: c / L; the paper has 4096 of 20480 tokens.
        penalty: what the punishment is multiplied by; the paper has 1, with rewards of -1 and 1.

    Raises ValueError if the buffer is no share of the limit.
    """
    if not 0 < buffer <= 1:
        raise ValueError(f"reward shaping 'overlong': buffer is {buffer}; give more than 0 and at most 1")
    cache = buffer * inputs.limit
    return inputs.rewards - penalty * ((inputs.lengths - (inputs.limit - cache)) / cache).clamp(0, 1)


@reward_shapings.register("sigmoid")
@independent
def sigmoid(inputs: ShapingInputs, *, reference: Score = 0.0) -> Tensor:
    """Squash by σ(reward - `reference`): between 0 and 1, so a policy gains little by what a reward model likes too
    much.

    Source: Preference As Reward, arXiv 2502.18770: by Bradley-Terry, the probability that the response is preferred to
    one whose score is `reference`. There that is the score of a response to the same prompt by the policy at the start;
    here it is one number for all prompts.
    """
    return torch.sigmoid(inputs.rewards - reference)


@reward_shapings.register("missing_eos")
@independent
def missing_eos(inputs: ShapingInputs, *, penalty: NotNegative = 1.0) -> Tensor:
    """Subtract a penalty from responses that the model did not end itself: cut at the limit, or by a stop string.

    Source: `missing_eos_penalty` of TRL's PPO and RLOO trainers.
    """
    return inputs.rewards - penalty * _ended_by(inputs, "missing_eos", "length", "stop").to(inputs.rewards.dtype)


@reward_shapings.register("truncated")
@independent
def truncated(inputs: ShapingInputs, *, penalty: NotNegative = 0.0, value: Score | None = None) -> Tensor:
    """Give responses that were cut at the limit a `value` in place of their reward, or take a `penalty` off it.

    A reward model was not asked about half a response, and a grader that looks at its end judges what is not there.
    """
    cut = _ended_by(inputs, "truncated", "length")
    rewards = (
        inputs.rewards if value is None else torch.where(cut, torch.full_like(inputs.rewards, value), inputs.rewards)
    )
    return rewards - penalty * cut.to(rewards.dtype)


@reward_shapings.register("clip")
@independent
def clip(inputs: ShapingInputs, *, low: Score = -10.0, high: Score = 10.0) -> Tensor:
    """Hold rewards between two values.

    Raises ValueError if `low` is above `high`.
    """
    if low > high:
        raise ValueError(f"reward shaping 'clip': low is {low}, above high, {high}")
    return inputs.rewards.clamp(low, high)


@reward_shapings.register("running_norm")
def running_norm(inputs: ShapingInputs, *, center: bool = True, eps: Positive = 1e-8) -> Tensor:
    """Bring rewards to mean 0 (unless `center` is false) and deviation 1, by those of all steps so far, this one too.

    Source: arXiv 2307.04964 ("Secrets of RLHF", reward normalization by historical mean and deviation). Mean and sum of
    squares of the steps are joined as in Chan, Golub and LeVeque (1979); the deviation is the sample's. `eps` is ours.
    With one value, or equal ones, so far the rewards are only centered.
    """
    exact = inputs.rewards.double()
    count, total = inputs.all_reduce(torch.stack([exact.new_tensor(len(exact)), exact.sum()])).tolist()
    mean = total / max(count, 1.0)
    (squares,) = inputs.all_reduce((exact - mean).square().sum().reshape(1)).tolist()
    state = inputs.state
    earlier, former = state.get("count", 0.0), state.get("mean", 0.0)
    whole = earlier + count
    if whole:
        apart = mean - former
        state["squares"] = state.get("squares", 0.0) + squares + apart**2 * earlier * count / whole
        state["mean"] = former + apart * count / whole
        state["count"] = whole
    deviation = (state.get("squares", 0.0) / max(whole - 1, 1.0)) ** 0.5
    shifted = exact - state.get("mean", 0.0) if center else exact
    return (shifted / (deviation + eps) if deviation else shifted).to(inputs.rewards.dtype)


def _ended_by(inputs: ShapingInputs, name: str, *reasons: str) -> Tensor:
    """Return [R] bool: whether a response ended for one of these reasons. Raises ValueError if nobody knows."""
    if inputs.finish_reasons is None:
        raise ValueError(
            f"reward shaping {name!r} reads the column 'finish_reason', which actor.generate_sequences gives; rows of "
            "this flow have none"
        )
    return torch.tensor([reason in reasons for reason in inputs.finish_reasons], dtype=torch.bool)
