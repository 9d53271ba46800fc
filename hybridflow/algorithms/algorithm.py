"""The base of algorithms: the roles as attributes, and what their flows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from hybridflow.algorithms.row_filtering import kept_rows
from hybridflow.batch import BatchRef
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.errors import HybridFlowError
from hybridflow.losses.kl_controllers import KLController, kl_controllers
from hybridflow.losses.options import with_options
from hybridflow.registry import Registry
from hybridflow.roles import (
    ActorRole,
    CostCriticRole,
    CostRole,
    CriticRole,
    ModelCostRole,
    ModelRewardRole,
    ReferenceRole,
    RewardModelRole,
    RewardRole,
    SamplingChanges,
    roles,
)

# What every flow that samples heeds.
SAMPLING = ("samples_per_prompt", "reward_kl_coef", "reward_kl_estimator")


class Algorithm:
    """One iteration of an RL algorithm, written as calls on roles.

    A subclass names its `roles` and writes `step`. It handles references only: a call returns before the ranks are
    done, and a role starts when its rows are there.

    Attributes:
        paper: where it comes from.
        roles: the roles that it calls; each becomes an attribute.
        only_for_kl: those of them that it calls only if `uses_reference_kl`; without, they are not started.
        parts: the settings of `algorithm` that name a part and that it heeds; a part set elsewhere is a mistake.
        heeds: the other settings of `algorithm` that it heeds, beside the sizes of batches; None: it does not say. Of a
            class itself, not of those that it is derived from.
        columns: what its flow gives beside `rewards` for an estimator to read.
        learner: the role whose model a run leaves.
        supervised: its prompts come with responses to learn from.
        preferences: its prompts come with two responses each, one preferred to the other.
        config: its settings.
        step_index: the number of the step that is being taken, from 0.
        next_prompts: gives as many new prompts as a step begins with; the trainer sets it.
        kept: how many rows a step has chosen to learn from; None until it has.
        kl: holds the coefficient of the KL inside the rewards.
    """

    paper: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    only_for_kl: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[str, ...]] = ("reward_shaping", "reward_kl_control", "advantage", "policy_loss")
    heeds: ClassVar[tuple[str, ...] | None] = None
    columns: ClassVar[tuple[str, ...]] = ("group_id",)
    learner: ClassVar[str] = "actor"
    supervised: ClassVar[bool] = False
    preferences: ClassVar[bool] = False
    actor: ActorRole[BatchRef]
    critic: CriticRole[BatchRef]
    reference: ReferenceRole[BatchRef]
    reward: RewardRole[BatchRef] | ModelRewardRole[BatchRef]
    reward_model: RewardModelRole[BatchRef]
    cost: CostRole[BatchRef] | ModelCostRole[BatchRef]
    cost_critic: CostCriticRole[BatchRef]
    next_prompts: Callable[[], BatchRef]
    kept: int | None = None

    def __init__(self, config: Settings, groups: Mapping[str, Any], seed: int = 1) -> None:
        self.config = config
        self.step_index = 0
        self._seed = seed
        control = config.reward_kl_control
        self.kl: KLController = with_options(kl_controllers, control.name, control.options)(config.reward_kl_coef)
        for role in self.roles_of(config):
            setattr(self, role, groups[role])

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            """Only asked for what is not there. A role that it may not call is told as such."""
            if not name.startswith("_") and name in roles:
                raise MissingRoleError(_missing(type(self), name))
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @classmethod
    def roles_of(cls, config: Settings) -> tuple[str, ...]:
        """The roles that it calls under these settings."""
        return tuple(role for role in cls.roles if role not in cls.only_for_kl or uses_reference_kl(config))

    @classmethod
    def planned_updates(cls, config: Settings, role: str, steps: int) -> int:
        """The optimiser steps of a role in a run of so many `steps`, which its learning-rate schedule spans.

        The actor takes none while only the critic learns. A step's rows that a filter leaves out are not known here.
        """
        waits = config.critic_warmup_steps if role == "actor" and "critic" in cls.roles else 0
        samples = 1 if cls.supervised or cls.preferences else config.samples_per_prompt
        parts = min(config.minibatches, config.prompts_per_step * samples)
        return max(steps - waits, 0) * parts * config.epochs

    def step(self, prompts: BatchRef) -> BatchRef:
        """Take one step on these prompts; the rows that it made."""
        raise NotImplementedError

    def on_step_end(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Take in what the calls of a step measured, before the next one; what there is to report besides."""
        if not self.config.reward_kl_coef or "actor/kl" not in metrics:
            return {}
        used = self.kl.coef
        if self.actor_learns:  # while only the critic does, nothing that the coefficient says can move the KL
            self.kl.update(metrics["actor/kl"])
        return {"actor/kl_coef": used}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to know beside weights, optimisers and `step_index`: plain JSON."""
        return {"kl": self.kl.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take in what `state` gave."""
        self.kl.restore(state["kl"])

    def generate(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> BatchRef:
        """`samples_per_prompt` responses to each prompt, beside the prompts; as `rollout` says but for `sampling`."""
        prompts = prompts.repeat(self.config.samples_per_prompt)
        return prompts | self.actor.generate_sequences(prompts, **sampling)

    def stream(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> Iterator[BatchRef]:
        """The rows of `generate`, some at a time, as they finish: other roles can start on them.

        `dispatch.concat` puts them, with what was added to them, into the order of `generate`.
        """
        prompts = prompts.repeat(self.config.samples_per_prompt)
        for rows, part in self.actor.stream_sequences(prompts, **sampling):
            yield (prompts.select(rows) | part).with_origin(rows)

    def advantage(self, rollout: BatchRef) -> BatchRef:
        """`advantages` and `returns` of the configured estimator; it runs on the actor's ranks."""
        return self.actor.compute_advantage(rollout, kl_coef=self.kl.coef)

    def filter_rollout(self, rollout: BatchRef) -> BatchRef:
        """The rows that `rollout_filter` finds worth learning from. Unless that is `none`, it waits for the rewards."""
        return rollout.select(kept_rows(rollout, self.config)) if self.config.rollout_filter.name != "none" else rollout

    def minibatches(self, rollout: BatchRef) -> Iterator[BatchRef]:
        """The rows in another order each epoch, cut into `minibatches` parts; one optimiser step a part."""
        self.kept = len(rollout)
        for epoch in range(self.config.epochs):
            order = np.random.default_rng((self._seed, self.step_index, epoch)).permutation(len(rollout))
            parts = rollout.select(order).split(self.config.minibatches)
            yield from (part for part in parts if len(part))  # a filter may have left fewer rows than parts

    @property
    def actor_learns(self) -> bool:
        """Whether the critic's head start is over."""
        return self.step_index >= self.config.critic_warmup_steps

    @property
    def uses_reference_kl(self) -> bool:
        """Whether leaving the reference costs anything, be it in the rewards or in the loss."""
        return uses_reference_kl(self.config)


class MissingRoleError(HybridFlowError, AttributeError):
    """A role was called that the algorithm does not name; as every attribute that is not there for `hasattr`."""


def _missing(cls: type[Algorithm], role: str) -> str:
    if role in cls.only_for_kl:
        return (
            f"{cls.__name__} asks for its role {role!r}, which is not started where no KL is penalised (only_for_kl; "
            "reward_kl_coef and policy_loss.kl_coef are 0): ask self.uses_reference_kl first"
        )
    if role in cls.roles:
        return f"{cls.__name__} asks for its role {role!r} before it has it: does its __init__ call super().__init__?"
    return (
        f"{cls.__name__} asks for the role {role!r}, which is not among its roles ({', '.join(cls.roles) or 'none'}): "
        f"name it there, roles = {(*cls.roles, role)}, or do not call it"
    )


def made_rows(algorithm: Algorithm, given: object) -> BatchRef:
    """What a step gave. Raises HybridFlowError unless it is rows."""
    if not isinstance(given, BatchRef):
        raise HybridFlowError(
            f"{type(algorithm).__name__}.step gave a {type(given).__name__}; the rows that it made (a BatchRef) were "
            "expected: end it with `return rollout`"
        )
    return given


def uses_reference_kl(config: Settings) -> bool:
    """Whether leaving the reference costs anything under these settings."""
    return bool(config.reward_kl_coef or config.policy_loss.kl_coef)


MODULES = (
    "ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "remax", "reinforce_plus_plus", "safe_rlhf",
    "sft", "reward_model", "cost_model", "dpo",
)  # fmt: skip
algorithms: Registry[type[Algorithm]] = Registry(
    "algorithm", *(f"hybridflow.algorithms.{name}" for name in MODULES), of=Algorithm
)
