"""Safe-RLHF: PPO under a limit on costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridflow.algorithms.algorithm import SAMPLING, algorithms
from hybridflow.algorithms.ppo import PPO
from hybridflow.batch import BatchRef
from hybridflow.losses.lagrange import Lagrange


@algorithms.register("safe_rlhf")
class SafeRLHF(PPO):
    """PPO-Lagrangian (Safe-RLHF, arXiv 2310.12773, section 3.3): the most reward whose mean cost stays under a limit.

    min over λ ≥ 0 of max over π of  E[r] - λ (E[c] - limit):  PPO on the advantages (A_r - λ A_c) / (1 + λ), with a
    critic of rewards and one of costs (equation 30), neither brought to scale for itself; after each step
    ln λ ← ln λ + lr · λ · (mean cost - limit)  (`lagrange`, equation 31). Defaults: PPO's, and those of
    `hybridflow.losses.kl_controllers.Lagrange`.
    """

    paper = "arXiv 2310.12773"
    roles = ("actor", "critic", "cost_critic", "reference", "reward", "cost")
    components = (*PPO.components, "lagrange")
    heeds = (*SAMPLING, "critic_warmup_steps")
    losses = ("policy", "value", "cost_value")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lagrange = Lagrange(**vars(self.config.lagrange))

    def rollout(self, prompts: BatchRef) -> BatchRef:
        """Generate, score rewards and costs."""
        rollout = super().rollout(prompts)
        return rollout | self.cost.compute_cost(rollout)

    def learn(self, rollout: BatchRef) -> BatchRef:
        """Estimate advantages with both critics, learn."""
        rollout |= self.old_log_probs(rollout)
        rollout |= self.critic.compute_values(rollout)
        rollout |= self.cost_critic.compute_cost_values(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(self.filter_rollout(rollout)):
            self.critic.update_critic(rows)
            self.cost_critic.update_cost_critic(rows)
            if self.actor_learns:
                self.actor.update_actor(rows)
        return rollout

    def advantage(self, rollout: BatchRef) -> BatchRef:
        """Estimate `advantages` of reward and cost in one, `returns` and `cost_returns`."""
        return self.actor.compute_constrained_advantage(
            rollout, kl_coef=self.kl.coef, multiplier=self.lagrange.multiplier
        )

    def on_step_end(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Report the multiplier that the step used, which moves by the mean cost that it measured."""
        used = self.lagrange.multiplier
        if self.actor_learns and "cost/mean" in metrics:  # there is none if every cost of the step has failed
            self.lagrange.update(metrics["cost/mean"])
        return {**super().on_step_end(metrics), "cost/multiplier": used}

    def state(self) -> dict[str, Any]:
        """Return the multiplier too."""
        return super().state() | {"lagrange": self.lagrange.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.lagrange.restore(state["lagrange"])
