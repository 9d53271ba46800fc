"""Advantages of a rank's rows: rewards are shaped, the KL is taken off, the estimator runs. No model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridflow.batch import Batch
from hybridflow.batch.columns import values_of
from hybridflow.losses.advantages import FIELDS, AdvantageInputs, estimator, needs
from hybridflow.losses.constrained import constrained_advantages
from hybridflow.losses.kl import kl_estimators
from hybridflow.losses.rewards import token_rewards
from hybridflow.losses.shaping import ShapingInputs, shaping
from hybridflow.workers.base import Context
from hybridflow.workers.model import tensor

Sum = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimation:
    """Estimates advantages of these rows, as `algorithm` says.

    Attributes:
        all_reduce: see `AdvantageInputs`.
    """

    rollout: Batch
    context: Context
    all_reduce: Sum

    def plain(self, kl_coef: float) -> Batch:
        """`advantages` and `returns`."""
        found, returns = self._estimate(self._rewards(), self._kl(), kl_coef, "values")
        return self._given(advantages=found, returns=returns)

    def constrained(self, kl_coef: float, multiplier: float) -> Batch:
        """`advantages` of reward and cost in one, `returns` and `cost_returns`.

        Half of the KL is taken off the rewards and half is put on the costs, so the mixture has the same share of it
        whatever the multiplier is (Safe-RLHF, arXiv 2310.12773, appendix on the policy's loss).
        """
        kl, costs = self._kl(), tensor(self.rollout.dense("costs"))
        found, returns = self._estimate(self._rewards(), kl, kl_coef / 2, "values")
        of_cost, cost_returns = self._estimate(costs, kl, -kl_coef / 2, "cost_values")
        mixed = constrained_advantages(found, of_cost, multiplier)
        return self._given(advantages=mixed, returns=returns, cost_returns=cost_returns)

    @property
    def _lengths(self) -> Tensor:
        return torch.from_numpy(self.rollout.ragged("response_ids").lengths)

    def _rewards(self) -> Tensor:
        """[R], shaped."""
        part = self.context.config.algorithm.reward_shaping
        limit = self.context.config.rollout.max_response_tokens
        return shaping(part.name, part.options)(
            ShapingInputs(tensor(self.rollout.dense("rewards")), self._lengths, limit)
        )

    def _kl(self) -> Tensor | None:
        """[T] estimates of the KL to the reference, which are also reported; None if there is no reference."""
        if "ref_log_probs" not in self.rollout:
            return None
        old, ref = (tensor(self.rollout.ragged(name).values) for name in ("old_log_probs", "ref_log_probs"))
        kl = kl_estimators.get(self.context.config.algorithm.reward_kl_estimator)(old, ref)
        self.context.metrics.mean("actor/kl", float(kl.sum()), len(kl))
        return kl

    def _estimate(self, scores: Tensor, kl: Tensor | None, coef: float, values: str) -> tuple[Tensor, Tensor]:
        part, rows = self.context.config.algorithm.advantage, self.rollout
        inputs = AdvantageInputs(
            token_rewards=token_rewards(scores, self._lengths, kl if coef else None, coef),
            lengths=self._lengths,
            values=tensor(rows.ragged(values).values) if values in rows else None,
            group_id=tensor(rows.dense("group_id")) if "group_id" in rows else None,
            baseline_rewards=tensor(rows.dense("baseline_rewards")) if "baseline_rewards" in rows else None,
            columns={name: tensor(values_of(rows[name])) for name in needs(part.name) if name not in FIELDS},
            all_reduce=self.all_reduce,
        )
        return estimator(part.name, part.options)(inputs)

    def _given(self, **columns: Tensor) -> Batch:
        responses, metrics = self.rollout.ragged("response_ids"), self.context.metrics
        for name, values in columns.items():
            metrics.mean(f"critic/{name}", float(values.sum()), len(values))
        return Batch(**{name: responses.like(values.numpy()) for name, values in columns.items()})
