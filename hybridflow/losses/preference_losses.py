"""Losses of preferences, a pair at a time.

A loss of the scores that a reward model gives to both sides of P pairs is a function in the registry `pair_losses`.
What it reads beside the scores are its keyword arguments, each of them a column of the pairs:

    @pair_losses.register("hinge")
    def hinge(chosen: Tensor, rejected: Tensor, *, chosen_harmful: Tensor) -> TokenLoss: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.registry import Registry

PairLoss = Callable[..., TokenLoss]
pair_losses: Registry[PairLoss] = Registry("loss of pairs", of=Callable)


def columns_of(name: str) -> tuple[str, ...]:
    """Return the columns that a loss reads beside the scores. Raises KeyError for an unknown name."""
    parameters = inspect.signature(pair_losses.get(name)).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


@pair_losses.register("bradley_terry")
def bradley_terry(chosen: Tensor, rejected: Tensor) -> TokenLoss:
    """-log σ(r_chosen - r_rejected): the negative log-likelihood of the choice.

    Source: Bradley and Terry, "Rank analysis of incomplete block designs" (Biometrika, 1952); as the loss of a reward
    model, arXiv 2203.02155, equation 1.

    Args:
        chosen, rejected: [P], the scores of both sides of P pairs, with gradients.

    Metrics: `reward_model/loss`, `reward_model/accuracy` (the chosen one scores higher; a tie is a mistake),
    `reward_model/margin` (the difference of the scores).
    """
    margin = chosen - rejected
    loss = -F.logsigmoid(margin)
    metrics = {"reward_model/loss": loss, "reward_model/accuracy": margin > 0, "reward_model/margin": margin}
    return TokenLoss(loss, sums(metrics))


@pair_losses.register("signed_cost")
def signed_cost(chosen: Tensor, rejected: Tensor, *, chosen_harmful: Tensor, rejected_harmful: Tensor) -> TokenLoss:
    """-log σ(C_w - C_l) - log σ(s_w C_w) - log σ(s_l C_l), with s = 1 for a harmful response and -1 for another.

    w is the more harmful response, which is our rejected one, and l the chosen one. The first term ranks them, the
    others give the cost its zero: above it is harm. Source: Safe-RLHF, arXiv 2310.12773, equation 6.

    Args:
        chosen, rejected: [P], the costs C of both sides of P pairs, with gradients.
        chosen_harmful, rejected_harmful: [P] bool.

    Metrics: `reward_model/loss`, `reward_model/accuracy` (the rejected one costs more; a tie is a mistake),
    `reward_model/margin` (how much more), `reward_model/sign_accuracy` (the share of responses on their side of zero).
    """
    margin = rejected - chosen
    signed = (_signed(rejected, rejected_harmful), _signed(chosen, chosen_harmful))
    loss = -F.logsigmoid(margin) - F.logsigmoid(signed[0]) - F.logsigmoid(signed[1])
    right = ((signed[0] > 0).float() + (signed[1] > 0).float()) / 2
    metrics = {"loss": loss, "accuracy": margin > 0, "margin": margin, "sign_accuracy": right}
    return TokenLoss(loss, sums({f"reward_model/{name}": values for name, values in metrics.items()}))


def _signed(cost: Tensor, harmful: Tensor) -> Tensor:
    return cost.where(harmful, -cost)


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float = 0.1) -> TokenLoss:
    """-log σ(β (log π/π_ref of the chosen response - log π/π_ref of the rejected one)).

    Source: DPO, arXiv 2305.18290, equation 7; β = 0.1 is its appendix B's.

    Args:
        chosen, rejected: [P], the summed log-probs of both responses of P pairs under the policy, with gradients.
        ref_chosen, ref_rejected: [P], under the reference.

    Metrics, of the implicit rewards β log π/π_ref: `actor/dpo_loss`, `actor/dpo_accuracy` (the chosen one's is higher;
    a tie is a mistake), `actor/dpo_margin` (their difference).
    """
    margin = beta * ((chosen - ref_chosen.detach()) - (rejected - ref_rejected.detach()))
    loss = -F.logsigmoid(margin)
    metrics = {"actor/dpo_loss": loss, "actor/dpo_accuracy": margin > 0, "actor/dpo_margin": margin}
    return TokenLoss(loss, sums(metrics))
