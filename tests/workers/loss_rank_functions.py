"""What ranks run: updates of an actor that generates nothing, on a loss of a user's."""

from __future__ import annotations

from typing import ClassVar

from hybridflow.config.schema import Config
from hybridflow.dispatch import Call
from hybridflow.losses.kl_estimators import k1, k2
from hybridflow.losses.loss import Loss, LossInputs, losses
from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.parallel.layout import Layout
from tests.engines.rank_functions import Arrays
from tests.workers import step_rank_functions


@losses.register("weighed_reverse_kl")
class WeighedReverseKL(Loss):
    """½ log²(policy / teacher), each row weighed by a dense column and the whole by an option."""

    needs: ClassVar = {"teacher_log_probs": "ragged float", "importance": "float"}

    def __init__(self, config: Config, *, coef: float = 1.0) -> None:
        super().__init__(config)
        self.coef = coef

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        both = inputs.log_probs, inputs.columns["teacher_log_probs"]
        importance = inputs.columns["importance"].repeat_interleave(inputs.lengths)
        return TokenLoss(self.coef * importance * k2(*both), sums({"actor/teacher_kl": k1(*both)}))


def update(config: Config, layout: Layout, parts: list[Call]) -> tuple[Arrays, dict[str, float]]:
    """The gradient of one update, by the weights of this rank's stage, and what it measured."""
    step_rank_functions.build(config, layout, ("actor",))
    _, metrics = step_rank_functions.call("actor", "update_policy", parts)
    return step_rank_functions.steps("actor")[0], dict(metrics)
