"""Losses for `update_policy`, tried as functions: each planted mistake is told."""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from hybridflow.config.schema import Config
from hybridflow.conformance.expectations import violations
from hybridflow.conformance.loss_checks import try_loss
from hybridflow.losses.kl_estimators import k2
from hybridflow.losses.loss import Loss, LossInputs
from hybridflow.losses.token_loss import TokenLoss, sums


class ReverseKL(Loss):
    """A loss that keeps every promise; those below break one each."""

    needs: ClassVar = {"teacher_log_probs": "ragged float"}

    def each(self, inputs: LossInputs) -> Tensor:
        return k2(inputs.log_probs, inputs.columns["teacher_log_probs"])

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        found = self.each(inputs)
        return TokenLoss(found, sums({"actor/kl": found}) if found.shape == inputs.log_probs.shape else {})


class Averaged(ReverseKL):
    def each(self, inputs: LossInputs) -> Tensor:
        return super().each(inputs).mean()


class Detached(ReverseKL):
    def each(self, inputs: LossInputs) -> Tensor:
        return super().each(inputs).detach()


class Flat(ReverseKL):
    def each(self, inputs: LossInputs) -> Tensor:
        return 0 * super().each(inputs)


class Undeclared(ReverseKL):
    needs: ClassVar = {}


class Dicing(ReverseKL):
    def each(self, inputs: LossInputs) -> Tensor:
        return super().each(inputs) * torch.rand(())


class WithoutDefault(ReverseKL):
    def __init__(self, config: Config, *, scale: float) -> None:
        super().__init__(config)


class Termless(ReverseKL):
    terms = ("actor/kl_loss",)


class OfPairs(ReverseKL):
    of_pairs = True


MISTAKES = {
    Averaged: r"wrong shape: the loss is \(\); \(\d+,\) was expected, one for each token",
    Detached: "gradient does not flow: the loss has none to what the model says",
    Flat: "gradient does not flow: it is 0 everywhere, whatever the rows are",
    Undeclared: "it reads the column 'teacher_log_probs' and does not say so: name it among its needs",
    Dicing: "it gives something else when it is called again with the same",
    WithoutDefault: "its option scale has no default",
    Termless: "its term actor/kl_loss is not among the TokenLoss's",
    OfPairs: r"wrong shape: the loss is \(\d+,\); \(12,\) was expected, one for each pair",
}


def test_a_loss_that_keeps_its_promises() -> None:
    assert violations(partial(try_loss, ReverseKL)) == []


@pytest.mark.parametrize("loss", MISTAKES)
def test_a_mistake_in_a_loss_is_told(loss: type[Loss]) -> None:
    (told,) = violations(partial(try_loss, loss))
    assert re.search(MISTAKES[loss], told), told
