"""The base of algorithms: the roles as attributes, and what their flows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Unpack

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.config.schema import Algorithm as Settings
from hybridflow.registry import Registry
from hybridflow.roles import (
    ActorRole,
    CriticRole,
    ModelRewardRole,
    ReferenceRole,
    RewardModelRole,
    RewardRole,
    SamplingChanges,
)


class Algorithm:
    """One iteration of an RL algorithm, written as calls on roles.

    A subclass names its `roles` and writes `step`. It handles references only: a call returns before the ranks are
    done, and a role starts when its rows are there.

    Attributes:
        roles: the roles that it calls; each becomes an attribute.
        learner: the role whose model a run leaves.
        supervised: its prompts come with responses to learn from.
        preferences: its prompts come with two responses each, one preferred to the other.
        config: its settings.
        number: the number of the step that is being taken, from 0.
    """

    roles: ClassVar[tuple[str, ...]] = ()
    learner: ClassVar[str] = "actor"
    supervised: ClassVar[bool] = False
    preferences: ClassVar[bool] = False
    actor: ActorRole[BatchRef]
    critic: CriticRole[BatchRef]
    reference: ReferenceRole[BatchRef]
    reward: RewardRole[BatchRef] | ModelRewardRole[BatchRef]
    reward_model: RewardModelRole[BatchRef]

    def __init__(self, config: Settings, groups: Mapping[str, Any], seed: int = 1) -> None:
        self.config, self.number, self._seed = config, 0, seed
        for role in self.roles:
            setattr(self, role, groups[role])

    def step(self, prompts: BatchRef) -> BatchRef:
        """Take one step on these prompts; the rows that it made."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to know beside weights, optimisers and `number`: plain JSON. Nothing, mostly."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take in what `state` gave."""

    def generate(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> BatchRef:
        """`samples_per_prompt` responses to each prompt, beside the prompts; as `rollout` says but for `sampling`."""
        prompts = prompts.repeat(self.config.samples_per_prompt)
        return prompts | self.actor.generate_sequences(prompts, step=self.number, **sampling)

    def stream(self, prompts: BatchRef, **sampling: Unpack[SamplingChanges]) -> Iterator[BatchRef]:
        """The rows of `generate`, some at a time, as they finish: other roles can start on them.

        `dispatch.concat` puts them, with what was added to them, into the order of `generate`.
        """
        prompts = prompts.repeat(self.config.samples_per_prompt)
        for rows, part in self.actor.stream_sequences(prompts, step=self.number, **sampling):
            yield (prompts.select(rows) | part).numbered(rows)

    def advantage(self, rollout: BatchRef) -> BatchRef:
        """`advantages` and `returns` of the configured estimator; it runs on the actor's ranks."""
        return self.actor.compute_advantage(rollout)

    def minibatches(self, rollout: BatchRef) -> Iterator[BatchRef]:
        """The rows in another order each epoch, cut into `minibatches` parts; one optimiser step a part."""
        for epoch in range(self.config.epochs):
            order = np.random.default_rng((self._seed, self.number, epoch)).permutation(len(rollout))
            yield from rollout.select(order).split(self.config.minibatches)

    @property
    def actor_learns(self) -> bool:
        """Whether the critic's head start is over."""
        return self.number >= self.config.critic_warmup_steps


algorithms: Registry[type[Algorithm]] = Registry(
    "algorithm", *(f"hybridflow.algorithms.{name}" for name in ("ppo", "grpo", "sft", "reward_model"))
)
