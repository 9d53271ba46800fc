"""The losses that come with hybridflow: of policies, of critics and of reward models. Their formulas stand beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from hybridflow.batch import Batch
from hybridflow.config import auto_settings
from hybridflow.config.schema import Config
from hybridflow.dispatch import Reads
from hybridflow.dispatch.known_columns import KINDS, kinds
from hybridflow.losses.corrections import CorrectionInputs, changed, correction
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.loss import Loss, LossInputs, losses
from hybridflow.losses.policy_losses import PolicyInputs, policy_loss
from hybridflow.losses.preference_losses import columns_of, dpo, pair_losses
from hybridflow.losses.segments import row_sums
from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.losses.value_loss import clipped_value_loss

SAMPLER = "rollout_log_probs"


@losses.register("policy")
class PolicyObjective(Loss):
    """`algorithm.policy_loss`: a loss of ratios and advantages, less entropy, plus the KL to the reference.

    Each token's loss is weighed for the sake of the engine that sampled it, which is not quite the old policy.
    """

    needs: ClassVar = kinds("old_log_probs", "advantages")
    optional: ClassVar = kinds("ref_log_probs", "rollout_log_probs")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = config.algorithm.policy_loss
        self._surrogate = policy_loss(self._settings.name, self._settings.options)
        self._kl = kl_estimators.get(self._settings.kl_estimator)
        self._measured_kl = kl_estimators.get(config.algorithm.reward_kl_estimator)
        self._correction = auto_settings.correction(config)
        self.aggregate = self._settings.aggregate
        used = {"pg_loss": True, "entropy_loss": self._settings.entropy_coef, "kl_loss": self._settings.kl_coef}
        self.terms = tuple(f"actor/{name}" for name, coef in used.items() if coef)

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        columns = inputs.columns
        settings = self._settings
        old = columns["old_log_probs"]
        policy = self._surrogate(PolicyInputs(inputs.log_probs, old, columns["advantages"], inputs.lengths))
        corrected = self._corrected(policy, inputs)
        terms = {"actor/pg_loss": corrected.loss, "actor/entropy_loss": inputs.entropy}
        total = corrected.loss - settings.entropy_coef * inputs.entropy
        if settings.kl_coef:
            terms["actor/kl_loss"] = self._kl(inputs.log_probs, columns["ref_log_probs"])
            total = total + settings.kl_coef * terms["actor/kl_loss"]
        metrics = dict(corrected.metrics)
        if "ref_log_probs" in columns and not self.config.algorithm.reward_kl_coef:  # which else measures it for all
            metrics |= sums({"actor/kl": self._measured_kl(old, columns["ref_log_probs"])})
        return replace(corrected, loss=total, metrics=metrics, terms={name: terms[name] for name in self.terms})

    def _corrected(self, policy: TokenLoss, inputs: LossInputs) -> TokenLoss:
        """Weigh each token's loss for the sake of its sampler, and report the weights."""
        part = self._correction
        asked = self._settings.correction
        unknown = asked.name == auto_settings.AUTO and SAMPLER not in inputs.columns  # rows that vLLM did not sample
        if part.name == "none" or unknown:
            return policy
        both = CorrectionInputs(inputs.columns["old_log_probs"], inputs.columns[SAMPLER], inputs.lengths)
        weights = correction(part.name, part.options)(both)
        measured = {"rollout_correction/weight": weights, "rollout_correction/changed": changed(both, weights)}
        return replace(
            policy,
            loss=policy.loss * weights,
            metrics={**policy.metrics, **sums(measured)},
            weights={**policy.weights, "rollout_correction/effective_share": weights},
        )


@losses.register("supervised")
class NegativeLogLikelihood(Loss):
    """-log π of the response tokens, whoever wrote them."""

    at_sampling_temperature = False

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        return TokenLoss(-inputs.log_probs, sums({"actor/nll": -inputs.log_probs}))


@losses.register("dpo")
class DPO(Loss):
    """Loss of preferences against a reference, `algorithm.preference_loss`; see `preference_losses.dpo`."""

    needs: ClassVar = kinds("ref_chosen", "ref_rejected")
    of_pairs = True

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        totals = row_sums(inputs.log_probs, inputs.lengths)
        reference = inputs.columns["ref_chosen"], inputs.columns["ref_rejected"]
        return dpo(totals[::2], totals[1::2], *reference, self.config.algorithm.preference_loss.beta)


@losses.register("value")
class ValueLoss(Loss):
    """Squared error of the critic's values, clipped around the old ones: `algorithm.value_loss`."""

    needs: ClassVar = kinds("values", "returns")
    at_sampling_temperature = False
    role: ClassVar[str] = "critic"

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        old, returns = (inputs.columns[name] for name in self.needs)
        value_loss = clipped_value_loss(inputs.values, old, returns, self.config.algorithm.value_loss.clip)
        named = {name.replace("critic/", f"{self.role}/", 1): value for name, value in value_loss.metrics.items()}
        return replace(value_loss, metrics=named)


@losses.register("cost_value")
class CostValueLoss(ValueLoss):
    """Value loss of the critic of costs."""

    needs: ClassVar = kinds("cost_values", "cost_returns")
    role = "cost_critic"


@losses.register("pairs")
class PairScores(Loss):
    """Loss of the scores that a reward model gives to both sides of pairs: `algorithm.pair_loss`."""

    of_pairs = True

    @classmethod
    def declared(cls) -> Reads:
        """Return the labels that any loss of pairs reads: which one it is, is known to the settings alone."""
        return Reads((), {column: KINDS.get(column, "") for name in pair_losses for column in columns_of(name)})

    def declared_in(self, rows: Batch) -> list[str]:
        """Return the labels of the loss that the settings name; others may be of any kind."""
        return [name for name in columns_of(self.config.algorithm.pair_loss) if name in rows]

    @classmethod
    def reads(cls) -> Reads:
        """Return no mask: a score is of a whole response."""
        own = cls.declared()
        return Reads(kinds("prompt_ids", "response_ids", "rejected_ids"), own.optional)

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        name = self.config.algorithm.pair_loss
        labels: dict[str, Any] = {column: inputs.columns[column] for column in columns_of(name)}
        return pair_losses.get(name)(inputs.scores[::2], inputs.scores[1::2], **labels)
