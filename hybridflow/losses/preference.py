"""The loss of a reward model, a pair at a time."""

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
