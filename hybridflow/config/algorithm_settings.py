"""Settings of the algorithm: its data sizes, its losses and its other components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from hybridflow.bounds import Bounds, Count, NotNegative, NotNegativeInt, Positive


@dataclass
class AdvantageConfig:
    """Advantage estimator and its options."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ComponentConfig:
    """Registered component that may be left out, and its options."""

    name: str = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PolicyLossConfig:
    """Policy loss, and how its tokens are averaged."""

    name: str = "ppo_clip"  # or gspo, cispo, pg
    options: dict[str, Any] = field(default_factory=dict)  # what that loss takes: clip_low, clip_high, ...
    aggregate: str = "token_mean"  # or sequence_mean, or fixed_length_mean
    correction: ComponentConfig = field(
        default_factory=lambda: ComponentConfig("auto")
    )  # of generation's log-probs against training's; auto: token_truncated in bfloat16, none in float32
    entropy_coef: Annotated[float, Bounds(because="below 0 it holds the entropy down")] = 0.0
    kl_coef: NotNegative = 0.0  # of the KL to the reference inside the loss
    kl_estimator: str = "k3"


@dataclass
class ValueLossConfig:
    """Critic's loss: squared error, clipped around the old values."""

    clip: Positive = 0.2


@dataclass
class PreferenceLossConfig:
    """Loss of DPO."""

    beta: Positive = 0.1  # how strongly the policy is held to the reference


@dataclass
class LagrangeConfig:
    """Multiplier of a limit on the mean cost of responses (Safe-RLHF)."""

    limit: Annotated[float, Bounds(because="costs have the scale of their grader")] = 0.0  # of the mean cost
    multiplier: Positive = 1.0  # to begin with
    lr: NotNegative = 0.1  # of its logarithm; 0: the multiplier stays what it is
    max: Positive = 100.0  # it is held here
    min: Positive = 1e-3  # and here: from nearly nothing it would not grow again


@dataclass
class AlgorithmConfig:
    """Algorithm, its data sizes and its components."""

    name: str = MISSING  # of the flow: the registered name of the algorithm
    recipe: str = ""  # what these settings of that flow are called, if they have a name of their own
    paper: str = ""  # where the recipe comes from
    prompts_per_step: Count = 64
    samples_per_prompt: Count = 1
    minibatches: Count = 1  # optimizer steps per pass over a step's rows
    epochs: Count = 1  # passes over a step's rows
    reward_kl_coef: NotNegative = 0.0  # of the KL to the reference, taken off the token rewards
    reward_kl_estimator: str = "k1"
    reward_kl_control: ComponentConfig = field(
        default_factory=lambda: ComponentConfig("fixed")
    )  # how that coefficient moves: or adaptive
    reward_shaping: ComponentConfig = field(
        default_factory=ComponentConfig
    )  # of a row's reward, before the KL is taken off: overlong
    rollout_filter: ComponentConfig = field(
        default_factory=ComponentConfig
    )  # of rows to learn from: unequal_groups, overlong
    max_draws: Count = 10  # of prompts for one step, where a step samples until enough of them teach something
    critic_warmup_steps: NotNegativeInt = 0  # steps in which only the critic learns
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    policy_loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    value_loss: ValueLossConfig = field(default_factory=ValueLossConfig)
    pair_loss: str = "bradley_terry"  # of the scores that a reward model gives to pairs: or signed_cost
    preference_loss: PreferenceLossConfig = field(default_factory=PreferenceLossConfig)
    lagrange: LagrangeConfig = field(default_factory=LagrangeConfig)
