"""Algorithm: base of the data flows, with the roles as attributes and what flows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from hybridflow.algorithms.class_checks import refuse_misdeclared
from hybridflow.algorithms.minibatch_order import minibatch_rows
from hybridflow.algorithms.missing_attributes import missing_role, refuse_renamed
from hybridflow.algorithms.old_log_probs import early_readers, of_old_log_probs, scored_but_first
from hybridflow.algorithms.row_filtering import kept_rows
from hybridflow.algorithms.step_context import StepContext
from hybridflow.batch import BatchRef
from hybridflow.config.schema import AlgorithmConfig as Settings
from hybridflow.dispatch import groups_of
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
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
    """Iteration of an RL algorithm, written as calls on roles.

    A subclass names its `roles` and writes `rollout` and `learn`, or the whole flow as one method, `step`. It handles
    references only: a call returns before the ranks are done, and a role starts when its rows are there.

    Attributes:
        paper: its source.
        roles: names of the roles that it calls; each becomes an attribute.
        only_for_kl: roles among these that it calls only if `uses_reference_kl`; without, they are not started.
        components: settings of `algorithm` that name a part and that it heeds; a part set elsewhere is a mistake.
        heeds: other settings of `algorithm` that it heeds, beside the sizes of batches; None: it does not say. It holds
            for the class itself, not for those that are derived from it.
        columns: columns that its flow gives beside `rewards` for an estimator to read.
        losses: names of the losses that its updates minimize; what they read must be given (`algorithms.columns`).
        learner: the role whose model a run leaves.
        supervised: its prompts come with responses to learn from.
        preferences: its prompts come with two responses each, one preferred to the other.
        generates: its flow samples from the actor, so a schedule gives generation the newest weights before. None: it
            does if it has an actor, unless its prompts come with responses.
        config: its settings.
        context: the step that is being taken.
        kl: holds the coefficient of the KL inside the rewards.
        scores_first: rows are scored before any update, whatever reads that: the actor's worker does one of the two in
            a way of a user's own. Whoever gives it roles says so.
    """

    paper: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    only_for_kl: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[str, ...]] = ("reward_shaping", "reward_kl_control", "advantage", "policy_loss")
    heeds: ClassVar[tuple[str, ...] | None] = None
    columns: ClassVar[tuple[str, ...]] = ("group_id",)
    losses: ClassVar[tuple[str, ...]] = ()
    learner: ClassVar[str] = "actor"
    supervised: ClassVar[bool] = False
    preferences: ClassVar[bool] = False
    generates: ClassVar[bool | None] = None
    actor: ActorRole[BatchRef]
    critic: CriticRole[BatchRef]
    reference: ReferenceRole[BatchRef]
    reward: RewardRole[BatchRef] | ModelRewardRole[BatchRef]
    reward_model: RewardModelRole[BatchRef]
    cost: CostRole[BatchRef] | ModelCostRole[BatchRef]
    cost_critic: CostCriticRole[BatchRef]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_renamed(cls, *vars(cls))
        refuse_misdeclared(cls, Algorithm)

    def __init__(self, config: Settings, groups: Mapping[str, Any], seed: int = 1) -> None:
        self.config = config
        self.context = StepContext()
        self.scores_first = False
        self._seed = seed
        control = config.reward_kl_control
        self.kl: KLController = with_options(kl_controllers, control.name, control.options)(config.reward_kl_coef)
        for role in self.roles_of(config):
            setattr(self, role, groups[role])

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            """Say why an attribute is not there: a role that it may not call, a name of an earlier version."""
            refuse_renamed(type(self), name)
            if not name.startswith("_") and name in roles:
                raise missing_role(type(self), name)
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            refuse_renamed(type(self), name)
            super().__setattr__(name, value)

    @classmethod
    def roles_of(cls, config: Settings) -> tuple[str, ...]:
        """Return the roles that it calls under these settings."""
        return tuple(role for role in cls.roles if role not in cls.only_for_kl or uses_reference_kl(config))

    @classmethod
    def samples_from_actor(cls) -> bool:
        """Tell whether its flow samples, as `generates` says or stands for."""
        if cls.generates is None:
            return "actor" in cls.roles and not (cls.supervised or cls.preferences)
        return cls.generates

    @classmethod
    def planned_updates(cls, config: Settings, role: str, steps: int) -> int:
        """Count the optimizer steps of a role in a run of so many `steps`, which its learning-rate schedule spans.

        The actor takes none while only the critic learns. A step's rows that a filter leaves out are not known here.
        """
        waits = config.critic_warmup_steps if role == "actor" and "critic" in cls.roles else 0
        samples = 1 if cls.supervised or cls.preferences else config.samples_per_prompt
        parts = min(config.minibatches, config.prompts_per_step * samples)
        return max(steps - waits, 0) * parts * config.epochs

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Make of prompts the rows to learn from: all that needs no role that learns, but to sample.

        Prompts that come with their responses are such rows already.
        """
        return prompts

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Take the optimizer steps of one rollout; return its rows, with what was added to them."""
        raise HybridFlowError(f"{type(self).__name__} has neither `learn` nor `step`: write one of them")

    def step(self, prompts: BatchRef) -> BatchRef:
        """Take one step on these prompts; return the rows that it made.

        A class that overrides it has its whole flow here, in the order in which it is written.
        """
        return self.learn(self.rollout(prompts))

    def begin_step(self, context: StepContext) -> None:
        """Take up a step; a schedule calls it before any other method of that step."""
        self.context = context

    def next_prompts(self) -> BatchRef:
        """Draw as many new prompts as the step began with."""
        return self.context.next_prompts()

    @property
    def step_index(self) -> int:
        """Number of the step that is being taken, from 0."""
        return self.context.step_index

    @property
    def kept(self) -> int | None:
        """Number of rows that the step has chosen to learn from; None until it has. `minibatches` sets it."""
        return self.context.kept

    @kept.setter
    def kept(self, rows: int | None) -> None:
        self.context.kept = rows

    def on_step_end(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Take in what the calls of a step measured, before the next one; return what there is to report besides."""
        if not self.config.reward_kl_coef or "actor/kl" not in metrics:
            return {}
        used = self.kl.coef
        if self.actor_learns:  # while only the critic does, nothing that the coefficient says can move the KL
            self.kl.update(metrics["actor/kl"])
        return {"actor/kl_coef": used}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to know beside weights, optimizers and `step_index`: plain JSON."""
        return {"kl": self.kl.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take in what `state` gave."""
        self.kl.restore(state["kl"])

    def generate(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> BatchRef:
        """Sample `samples_per_prompt` responses to each prompt; return them beside the prompts.

        The section `rollout` says how, but for what `sampling` changes.
        """
        prompts = prompts.repeat(self.config.samples_per_prompt)
        return prompts | self.actor.generate_sequences(prompts, **sampling)

    def stream(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> Iterator[BatchRef]:
        """Yield the rows of `generate`, some at a time, as they finish: other roles can start on them.

        `dispatch.concat` puts them, with what was added to them, into the order of `generate`.
        """
        prompts = prompts.repeat(self.config.samples_per_prompt)
        for rows, part in self.actor.stream_sequences(prompts, **sampling):
            yield (prompts.select(rows) | part).with_origin(rows)

    def old_log_probs(self, rollout: BatchRef) -> BatchRef:
        """Score the rows by the policy that the step begins with, unless nothing reads that before its first update.

        Then it gives no column: the first update takes the log-probs of its own forward pass, and `minibatches` scores
        the rows of the others.
        """
        return rollout.select_columns(()) if self.first_update_scores else self.actor.compute_log_prob(rollout)

    def advantage(self, rollout: BatchRef) -> BatchRef:
        """Estimate `advantages` and `returns` as configured, on the actor's ranks."""
        return self.actor.compute_advantage(rollout, kl_coef=self.kl.coef)

    def filter_rollout(self, rollout: BatchRef) -> BatchRef:
        """Select the rows that `rollout_filter` finds worth learning from. Unless that is `none`, it waits for the
        rewards.
        """
        return rollout.select(kept_rows(rollout, self.config)) if self.config.rollout_filter.name != "none" else rollout

    def minibatches(self, rollout: BatchRef) -> Iterator[BatchRef]:
        """Shuffle the rows anew each epoch and cut them into `minibatches` parts, one for each optimizer step.

        Samples of a prompt stay together, so that an update computes the prompt once; see `minibatch_rows`. Where the
        losses are of old log-probs and the rows have none, they are scored, but for those of the first part.
        """
        self.kept = len(rollout)
        groups = groups_of(rollout)
        unscored = of_old_log_probs(type(self)) and OLD_LOG_PROBS not in rollout.columns
        if unscored and not self.first_update_scores:
            rollout |= self.actor.compute_log_prob(rollout)
        for epoch in range(self.config.epochs):
            generator = np.random.default_rng((self._seed, self.step_index, epoch))
            chosen = minibatch_rows(groups, self.config.minibatches, generator)
            parts = [rollout.select(rows) for rows in chosen if len(rows)]  # a filter may have left fewer rows
            if not unscored or not self.first_update_scores:
                yield from parts
                continue
            parts = scored_but_first(parts, self.actor)
            yield from parts[:1]
            if self.context.logs_tokens and parts:  # by now the first has been learned from
                self.context.scored = [parts[0] | self.actor.recall_log_probs(parts[0]), *parts[1:]]
            yield from parts[1:]

    @property
    def first_update_scores(self) -> bool:
        """Tell whether the step's first update takes the log-probs of its own forward pass as the old ones."""
        if self.scores_first or self.context.in_parts or not self.actor_learns:
            return False
        return not any(early_readers(self.config, type(self)))

    @property
    def actor_learns(self) -> bool:
        """Tell whether the critic's head start is over."""
        return self.step_index >= self.config.critic_warmup_steps

    @property
    def uses_reference_kl(self) -> bool:
        """Tell whether leaving the reference costs anything, be it in the rewards or in the loss."""
        return uses_reference_kl(self.config)


def made_rows(algorithm: Algorithm, output: object) -> BatchRef:
    """Return what a step gave. Raises HybridFlowError unless it is rows."""
    if not isinstance(output, BatchRef):
        written = "learn" if type(algorithm).step is Algorithm.step else "step"
        raise HybridFlowError(
            f"{type(algorithm).__name__}.{written} gave a {type(output).__name__}; the rows that it made (a BatchRef) "
            "were expected: end it with `return rollout`"
        )
    return output


def uses_reference_kl(config: Settings) -> bool:
    """Tell whether leaving the reference costs anything under these settings."""
    return bool(config.reward_kl_coef or config.policy_loss.kl_coef)


MODULES = ("ppo", "grpo", "dapo", "remax", "safe_rlhf", "sft", "reward_model", "dpo")
algorithms: Registry[type[Algorithm]] = Registry(
    "algorithm", *(f"hybridflow.algorithms.{name}" for name in MODULES), of=Algorithm
)
