"""Reward shaping: what a row's reward becomes before it is compared with others.

A shaping is a function `(inputs, **options) -> [R] rewards` in the registry `reward_shapings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hybridflow.bounds import Bounds, NotNegative, Share
from hybridflow.losses.options import with_options
from hybridflow.registry import Registry


@dataclass(frozen=True)
class ShapingInputs:
    """Inputs of a reward shaping.

    Attributes:
        rewards: [R].
        lengths: [R] int64, tokens of each response.
        limit: maximum number of tokens of a response.
    """

    rewards: Tensor
    lengths: Tensor
    limit: int


RewardShaping = Callable[..., Tensor]
reward_shapings: Registry[RewardShaping] = Registry("reward shaping", of=Callable)
Score = Annotated[float, Bounds(because="scores have the scale of their reward model")]


def shaping(name: str, options: Mapping[str, Any]) -> Callable[[ShapingInputs], Tensor]:
    """Return a reward shaping of a registered name with its options set.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    return with_options(reward_shapings, name, options)


@reward_shapings.register("none")
def none(inputs: ShapingInputs) -> Tensor:
    """Return the rewards unchanged."""
    return inputs.rewards


@reward_shapings.register("overlong")
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
def sigmoid(inputs: ShapingInputs, *, reference: Score = 0.0) -> Tensor:
    """Squash by σ(reward - `reference`): between 0 and 1, so a policy gains little by what a reward model likes too
    much.

    Source: Preference As Reward, arXiv 2502.18770: by Bradley-Terry, the probability that the response is preferred to
    one whose score is `reference`. There that is the score of a response to the same prompt by the policy at the start;
    here it is one number for all prompts.
    """
    return torch.sigmoid(inputs.rewards - reference)
