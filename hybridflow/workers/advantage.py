"""Advantages of a rank's rows: rewards are shaped, the KL is taken off, the estimator runs.

No model is run, loaded or needed: a worker that does nothing else starts on ranks that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.losses.advantages import FIELDS, AdvantageInputs, estimator, needs, reads_too
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.lagrange import constrained_advantages
from hybridflow.losses.reward_shapings import ShapingInputs, shape, shapings_of
from hybridflow.losses.rewards import token_rewards
from hybridflow.losses.rollout_filters import compared_groups
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.platform import platform
from hybridflow.parallel.waiting import waiting
from hybridflow.roles import AdvantageRole
from hybridflow.tasks.chosen_graders import weights
from hybridflow.tasks.grades import over_learnable, settled
from hybridflow.workers.worker import Context, Worker

Sum = Callable[[Tensor], Tensor]
CRITICS = (("critic", "values", "returns"), ("cost_critic", "cost_values", "cost_returns"))
"""Each critic with the columns of what it says and of what it should have said."""


class AdvantageWorker(AdvantageRole[Batch], Worker):
    """Estimates advantages of this rank's rows; the ranks of its pool have all rows of the batch between them."""

    def compute_advantage(self, rollout: Batch, *, kl_coef: float) -> Batch:
        return self._estimated(rollout, lambda estimation: estimation.plain(kl_coef))

    def compute_constrained_advantage(self, rollout: Batch, *, kl_coef: float, multiplier: float) -> Batch:
        return self._estimated(rollout, lambda estimation: estimation.constrained(kl_coef, multiplier))

    def _estimated(self, rollout: Batch, estimate: Callable[[Estimation], Batch]) -> Batch:
        """Estimate for the rows to learn from. Grades of an algorithm that made them itself are checked here."""
        self._report_masked(rollout)
        checked = settled(rollout, rollout, self.context.config, Metrics())
        return over_learnable(checked, lambda rows: estimate(self._estimation(rows)))

    def _estimation(self, rows: Batch) -> Estimation:
        return Estimation(rows, self.context, sum_over_pool, self.shaping_states)

    @cached_property
    def shaping_states(self) -> dict[str, dict[str, float]]:
        """Return what reward shapings remember from step to step, by their names: plain JSON, alike on all ranks."""
        return {}

    def _report_masked(self, rollout: Batch) -> None:
        """Report what `loss_mask` leaves out, if there is one."""
        learned = LearnedTokens.of(rollout)
        metrics = self.context.metrics
        if learned.mask is not None:
            metrics.total("rollout/masked_rows", float((learned.lengths == 0).sum()))
            metrics.mean("rollout/masked_fraction", float((~learned.mask).sum()), len(learned.mask))


def sum_over_pool(vector: Tensor) -> Tensor:
    """Return the sum of a vector over the ranks of the pool."""
    total = vector.to(platform().device)
    platform().synchronize()  # as in Groups.global_sums
    with waiting.meeting():
        dist.all_reduce(total)
        return total.to(vector.device)


@dataclass(frozen=True)
class Estimation:
    """Advantages of some rows, as `algorithm` says.

    Attributes:
        all_reduce: see `AdvantageInputs`.
        shaping_states: what reward shapings remember from step to step, by their names.
    """

    rollout: Batch
    context: Context
    all_reduce: Sum
    shaping_states: dict[str, dict[str, float]] = field(default_factory=dict)

    def plain(self, kl_coef: float) -> Batch:
        """Estimate `advantages` and `returns`."""
        rewards, baseline = self._shaped_rewards()
        steps = self._tokens("token_rewards")
        estimate, returns = self._estimate(rewards, self._kl(kl_coef), kl_coef, self._tokens("values"), baseline, steps)
        return self._as_columns(advantages=estimate, returns=returns)

    def constrained(self, kl_coef: float, multiplier: float) -> Batch:
        """Estimate `advantages` of reward and cost in one, `returns` and `cost_returns`.

        Rewards and values are put together before the estimator sees them, so what it brings to scale is the mixture:
        costs brought to scale for themselves would weigh more the rarer they are, whatever the multiplier says.

        Half of the KL is taken off the rewards and half is put on the costs, so the mixture has the same share of it
        whatever the multiplier is (Safe-RLHF, arXiv 2310.12773, appendix on the policy's loss).
        """
        rewards, baseline = self._shaped_rewards()
        costs = torch.tensor(self.rollout.dense("costs"))
        kl = self._kl(kl_coef)
        values = self._tokens("values")
        cost_values = self._tokens("cost_values")
        steps = self._tokens("token_rewards")
        _, returns = self._estimate(rewards, kl, kl_coef / 2, values, baseline, steps)
        _, cost_returns = self._estimate(costs, kl, -kl_coef / 2, cost_values, baseline)
        mixed = constrained_advantages(rewards, costs, multiplier)
        if values is not None and cost_values is not None:
            values = constrained_advantages(values, cost_values, multiplier)
        if baseline is not None:  # of rewards; costs are compared with none
            baseline = baseline / (1 + multiplier)
        if steps is not None:
            steps = steps / (1 + multiplier)
        estimate, _ = self._estimate(mixed, kl, kl_coef / 2, values, baseline, steps)
        return self._as_columns(advantages=estimate, returns=returns, cost_returns=cost_returns)

    @cached_property
    def learned(self) -> LearnedTokens:
        """Tokens that advantages are estimated for."""
        return LearnedTokens.of(self.rollout)

    @property
    def _lengths(self) -> Tensor:
        """Number of learned tokens of each row, [R]: formulas see no others."""
        return torch.from_numpy(self.learned.lengths)

    def _shaped_rewards(self) -> tuple[Tensor, Tensor | None]:
        """Return [R] rewards and, if the estimator reads them, [R] those of the responses that they are compared with.

        Both are shaped, in one call: whatever a shaping does, a response as good and as long as the one that it is
        compared with is given the same.
        """
        rewards = torch.tensor(self.rollout.dense("rewards"))
        lengths = torch.from_numpy(self.rollout.ragged("response_ids").lengths)  # whole: so is what the limit is of
        read = needs(self.context.config.algorithm.advantage.name)
        compared = "baseline_rewards" in self.rollout and "baseline_rewards" in read
        if compared:
            rewards = torch.cat([rewards, torch.tensor(self.rollout.dense("baseline_rewards"))])
            lengths = torch.cat([lengths, self._baseline_lengths()])
        limit = self.context.config.rollout.max_response_tokens
        inputs = ShapingInputs(rewards, lengths, limit, self._finish_reasons(lengths), all_reduce=self.all_reduce)
        shaped = shape(inputs, self._shapings, self.shaping_states)
        rows = len(self.rollout)
        return shaped[:rows], shaped[rows:] if compared else None

    @property
    def _shapings(self) -> list[tuple[str, Mapping[str, Any]]]:
        """List the shapings, each with its options, in their order."""
        return shapings_of(self.context.config.algorithm)

    def _finish_reasons(self, lengths: Tensor) -> list[str] | None:
        """Return why each response ended, if that is known; of those to compare with, by whether they fill the limit.

        Args:
            lengths: of the rows' responses, and of those to compare with after them.
        """
        if "finish_reason" not in self.rollout:
            return None
        limit = self.context.config.rollout.max_response_tokens
        compared = lengths[len(self.rollout) :].tolist()
        return [*self.rollout.dense("finish_reason"), *("length" if n >= limit else "end" for n in compared)]

    def _baseline_lengths(self) -> Tensor:
        """Count the tokens of the responses to compare with, [R].

        Raises ValueError if a shaping would need to know and cannot.
        """
        if "baseline_lengths" in self.rollout:
            return torch.tensor(self.rollout.dense("baseline_lengths"))
        if not self._shapings:
            return torch.zeros_like(self._lengths)
        name, _ = self._shapings[0]
        single = self.context.config.algorithm.reward_shaping.name != "none"
        key = "reward_shaping.name" if single else "reward_shapings"
        raise ValueError(
            f"algorithm.{key}: {name} given, and rows with 'baseline_rewards', which is shaped too; "
            "give 'baseline_lengths' beside them ([R] int, tokens of those responses), as reward.compute_baseline does"
        )

    def _tokens(self, column: str) -> Tensor | None:
        """Return the [T] values of a ragged column, if the rows have it."""
        return self._picked(column) if column in self.rollout else None

    def _picked(self, column: str) -> Tensor:
        """Return the [T] values of a ragged column over responses, or the [R] of a dense one."""
        values = self.rollout[column]
        return torch.tensor(self.learned.pick(values) if isinstance(values, Ragged) else values)

    def _kl(self, coef: float) -> Tensor | None:
        """Estimate the KL to the reference at each token, [T], and report it; None if it is in no rewards."""
        if "ref_log_probs" not in self.rollout or not coef:
            return None
        old, ref = (self._picked(name) for name in ("old_log_probs", "ref_log_probs"))
        kl = kl_estimators.get(self.context.config.algorithm.reward_kl_estimator)(old, ref)
        self.context.metrics.mean("actor/kl", float(kl.sum()), len(kl))
        return kl

    def _estimate(
        self,
        scores: Tensor,
        kl: Tensor | None,
        coef: float,
        values: Tensor | None,
        baseline: Tensor | None,
        steps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        part = self.context.config.algorithm.advantage
        rows = self.rollout
        inputs = AdvantageInputs(
            token_rewards=token_rewards(scores, self._lengths, kl, coef, steps),
            lengths=self._lengths,
            values=values,
            group_id=torch.tensor(rows.dense("group_id")) if "group_id" in rows else None,
            baseline_rewards=baseline,
            columns={name: self._picked(name) for name in self._columns(part.name)},
            all_reduce=self.all_reduce,
            grade_weights=list(weights(self.context.config.reward).values()) if "grades" in rows else None,
        )
        return estimator(part.name, part.options)(inputs)

    def _columns(self, name: str) -> list[str]:
        """List what an estimator reads beside its fields: what it needs, and what else of it rows have."""
        return [
            *(column for column in needs(name) if column not in FIELDS),
            *(column for column in reads_too(name) if column in self.rollout),
        ]

    def _as_columns(self, **columns: Tensor) -> Batch:
        """Report [T] estimates, and put them to their places in the responses."""
        metrics = self.context.metrics
        for name, values in columns.items():
            metrics.mean(f"critic/{name}", float(values.sum()), len(values))
        self._report(columns)
        return Batch(**{name: self.learned.spread(values.numpy()) for name, values in columns.items()})

    def _report(self, columns: Mapping[str, Tensor]) -> None:
        """Report the spread of advantages, and how much of the returns the critics knew."""
        metrics = self.context.metrics
        advantages = columns["advantages"].numpy()
        if len(advantages):
            metrics.max("critic/advantages_max", advantages.max())
            metrics.min("critic/advantages_min", advantages.min())
        self._report_groups()
        for role, values, returns in CRITICS:
            guessed = self._tokens(values)
            if guessed is not None and returns in columns:
                metrics.explain(f"{role}/vf_explained_var", columns[returns].numpy(), guessed.numpy())

    def _report_groups(self) -> None:
        """Report the share of the groups of several samples whose rewards differ, where rewards are of whole rows."""
        rows = self.rollout
        if "group_id" not in rows or "token_rewards" in rows:
            return
        _, unequal, sizes = compared_groups(rows.dense("rewards"), rows.dense("group_id"))
        several = sizes > 1
        self.context.metrics.mean("rollout/unequal_groups", float(unequal[several].sum()), float(several.sum()))
