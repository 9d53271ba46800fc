"""Settings of the algorithm: its data sizes, its losses and its other components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from hybridflow.bounds import Bounds, Count, NotNegative, NotNegativeInt, Positive, Rows


@dataclass
class AdvantageConfig:
    """Advantage estimator and its options."""

    name: str = "none"  # the registered name of the estimator; none where a flow compares no rewards
    options: dict[str, Any] = field(default_factory=dict)  # what that estimator takes: gamma, lam, ...


@dataclass
class ComponentConfig:
    """Registered component that may be left out, and its options."""

    name: str = "none"  # its registered name
    options: dict[str, Any] = field(default_factory=dict)  # what it takes


@dataclass
class PolicyLossConfig:
    """Policy loss, and how its tokens are averaged."""

    name: str = "ppo_clip"  # the registered name of the loss
    options: dict[str, Any] = field(default_factory=dict)  # what that loss takes: clip_low, clip_high, ...
    aggregate: str = "token_mean"  # how the loss of tokens becomes one number
    # weights for generation's log-probs against training's; auto: token_truncated in bfloat16, or where the schedule
    # samples with older weights; else none
    correction: ComponentConfig = field(default_factory=lambda: ComponentConfig("auto"))
    # coefficient of the entropy in the loss
    entropy_coef: Annotated[float, Bounds(because="below 0 it holds the entropy down")] = 0.0
    kl_coef: NotNegative = 0.0  # coefficient of the KL to the reference inside the loss
    kl_estimator: str = "k3"  # of that KL, from the log-probs of the sampled tokens


@dataclass
class ValueLossConfig:
    """Critic's loss: squared error, clipped around the old values."""

    clip: Positive = 0.2  # how far a value may move from the old one within a step


@dataclass
class PreferenceLossConfig:
    """Loss of DPO."""

    beta: Positive = 0.1  # how strongly the policy is held to the reference


@dataclass
class LagrangeConfig:
    """Multiplier of a limit on the mean cost of responses (Safe-RLHF)."""

    # the mean cost that responses may have
    limit: Annotated[float, Bounds(because="costs have the scale of their grader")] = 0.0
    multiplier: Positive = 1.0  # weight of the cost, to begin with
    lr: NotNegative = 0.1  # learning rate of its logarithm; 0: the multiplier stays what it is
    max: Positive = 100.0  # the multiplier is held below it
    min: Positive = 1e-3  # and above this: from nearly nothing it would not grow again


@dataclass
class AlgorithmConfig:
    """Algorithm, its data sizes and its components."""

    name: str = MISSING  # the registered name of the algorithm, whose flow it is
    recipe: str = ""  # what these settings of that flow are called, if they have a name of their own
    paper: str = ""  # where the recipe comes from
    prompts_per_step: Rows = 64  # prompts, or rows of given text, that a step begins with
    samples_per_prompt: Rows = 1  # responses to each prompt
    minibatches: Count = 1  # parts of a step's rows, with an update each, in every pass over them
    epochs: Count = 1  # passes over a step's rows
    reward_kl_coef: NotNegative = 0.0  # coefficient of the KL to the reference, taken off the token rewards
    reward_kl_estimator: str = "k1"  # of that KL, from the log-probs of the sampled tokens
    reward_kl_control: ComponentConfig = field(
        default_factory=lambda: ComponentConfig("fixed")
    )  # how reward_kl_coef moves in the course of the run
    reward_shaping: ComponentConfig = field(
        default_factory=ComponentConfig
    )  # change of a row's reward, before the KL is taken off
    reward_shapings: dict[str, Any] = field(default_factory=dict)  # several by name, with options, in their order
    rollout_filter: ComponentConfig = field(default_factory=ComponentConfig)  # choice of the rows to learn from
    max_draws: Count = 10  # draws of prompts for one step, where it samples until enough of them teach something
    critic_warmup_steps: NotNegativeInt = 0  # steps in which only the critic learns
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    policy_loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    value_loss: ValueLossConfig = field(default_factory=ValueLossConfig)
    pair_loss: str = "bradley_terry"  # loss of the scores that a reward model gives to pairs
    preference_loss: PreferenceLossConfig = field(default_factory=PreferenceLossConfig)
    lagrange: LagrangeConfig = field(default_factory=LagrangeConfig)
