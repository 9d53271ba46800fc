"""Losses of preferences, a pair at a time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hybridflow.losses.token_loss import TokenLoss, sums


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
