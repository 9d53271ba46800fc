"""Algorithms with one mistake each, for `hybridflow check tests.conformance.planted`; the last ends its ranks."""

from __future__ import annotations

import numpy as np

from hybridflow import Batch, algorithms, dispatch
from hybridflow.roles import Role, roles
from hybridflow.workers import Worker


@roles.register("planted")
class Planted(Role, Worker):
    light = True

    @dispatch.using("dp_proto", needs=["response_ids"], gives={"odd": "float"})
    def compute_odd(self, rollout: Batch) -> Batch:
        return Batch(odd=np.full(len(rollout), np.nan))

    @dispatch.using("dp_proto", needs=["response_ids"], gives={"few": "float"})
    def compute_few(self, rollout: Batch) -> Batch:
        return Batch(few=np.zeros(max(0, len(rollout) - 1)))


class Scored(algorithms.Algorithm):
    roles = ("actor", "reward", "planted")

    def scored(self, prompts):
        rollout = self.generate(prompts)
        rollout |= self.actor.compute_log_prob(rollout)
        return rollout | self.reward.compute_reward(rollout)


@algorithms.register("planted_column")
class ReadsWhatNobodyGave(Scored):
    def step(self, prompts):
        rollout = self.scored(prompts)
        self.actor.update_actor(rollout)
        return rollout


@algorithms.register("planted_nan")
class GivesWhatIsNotFinite(Scored):
    columns = ("group_id", "even")

    def step(self, prompts):
        rollout = self.scored(prompts)
        rollout |= self.planted.compute_odd(rollout)
        rollout |= self.advantage(rollout)
        return rollout


@algorithms.register("planted_nothing")
class GivesNothing(Scored):
    def step(self, prompts):
        rollout = self.scored(prompts)
        self.actor.update_actor(rollout | self.advantage(rollout))


@algorithms.register("planted_rows")
class LosesARow(Scored):
    def step(self, prompts):
        rollout = self.scored(prompts)
        return rollout | self.planted.compute_few(rollout)
