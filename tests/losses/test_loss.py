"""Losses as data: what each declares is what travels, and each is made with its settings and options."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.config.schema import Config
from hybridflow.dispatch import Call, methods
from hybridflow.dispatch.message import pack
from hybridflow.errors import HybridFlowError
from hybridflow.losses.loss import Loss, LossInputs, losses
from hybridflow.losses.options import with_options
from hybridflow.losses.preference_losses import pair_losses
from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.roles import roles

TOKENS = {"prompt_ids", "response_ids"}
COMMON = {"rewards", "baseline_rewards", "costs", "loss_mask", "group_id", "prefix"}


class Scaled(Loss):
    """A loss of a user's."""

    needs: ClassVar = {"teacher_log_probs": "ragged float"}
    optional: ClassVar = ["hints"]

    def __init__(self, config: Config, *, scale: float = 1.0) -> None:
        super().__init__(config)
        self.scale = scale

    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        loss = self.scale * (inputs.log_probs - inputs.columns["teacher_log_probs"])
        return TokenLoss(loss, sums({"actor/scaled": loss}))


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(losses._components, "scaled", Scaled)
    return "scaled"


@pytest.mark.parametrize(
    ("role", "method", "needs", "optional"),
    [
        (
            "actor",
            "update_actor",
            {*TOKENS, "old_log_probs", "advantages"},
            {*COMMON, "sampling_temperature", "ref_log_probs", "rollout_log_probs"},
        ),
        ("actor", "update_supervised", TOKENS, COMMON),
        (
            "actor",
            "update_preferred",
            {*TOKENS, "rejected_ids", "ref_chosen", "ref_rejected"},
            {"loss_mask", "rejected_loss_mask", "group_id"},
        ),
        ("critic", "update_critic", {*TOKENS, "values", "returns"}, COMMON),
        ("cost_critic", "update_cost_critic", {*TOKENS, "cost_values", "cost_returns"}, COMMON),
        (
            "reward_model",
            "update_reward_model",
            {*TOKENS, "rejected_ids"},
            {"chosen_harmful", "rejected_harmful"},
        ),
    ],
)
def test_an_update_reads_what_its_loss_declares(role: str, method: str, needs: set[str], optional: set[str]) -> None:
    declared = methods(roles.get(role))[method].of_call(("the rows",), {})
    assert set(declared.needs or ()) == needs and set(declared.optional) == optional


@pytest.mark.parametrize(("loss", "method"), [("policy", "update_actor"), ("supervised", "update_supervised")])
def test_the_conveniences_are_updates_on_a_loss_of_that_name(loss: str, method: str) -> None:
    found = methods(roles.get("actor"))
    assert found["update_policy"].of_call(("rows", loss), {}) == found[method].of_call(("rows",), {})


def test_columns_of_a_users_loss_travel_and_no_others(scaled: str) -> None:
    """A call names the loss by place or by name; what the loss does not read stays where it is."""
    texts = Ragged.of([[1, 2], [3]], np.int64)
    known = {name: texts.like(np.zeros(3, np.float32)) for name in ("teacher_log_probs", "advantages", "values")}
    rows = BatchRef.from_local(Batch(prompt_ids=texts, response_ids=texts, rewards=np.zeros(2), **known))
    for args, kwargs in (((rows, scaled), {"scale": 2.0}), ((rows,), {"loss": scaled})):
        method = methods(roles.get("actor"))["update_policy"].of_call(args, kwargs)
        (_, _, taken), _ = pack(Call(args, kwargs), method.reads)
        ((_, pieces, _),) = taken
        assert {name for columns, _ in pieces for name in columns} == {*TOKENS, "rewards", "teacher_log_probs"}
        assert method.kinds["teacher_log_probs"] == "ragged float" and "hints" in method.optional


def test_a_loss_that_there_is_not_is_told_with_the_nearest(scaled: str) -> None:
    method = methods(roles.get("actor"))["update_policy"]
    with pytest.raises(HybridFlowError, match="no loss is named 'scald'; did you mean 'scaled'"):
        method.of_call(("rows", "scald"), {})


def test_a_loss_of_pairs_reads_the_labels_of_any(monkeypatch: pytest.MonkeyPatch) -> None:
    def strong(chosen: torch.Tensor, rejected: torch.Tensor, *, strength: torch.Tensor) -> TokenLoss:
        return TokenLoss(strength * (rejected - chosen), {})

    monkeypatch.setitem(pair_losses._components, "strong", strong)
    declared = methods(roles.get("reward_model"))["update_reward_model"].of_call(("pairs",), {})
    assert set(declared.optional) == {"chosen_harmful", "rejected_harmful", "strength"}
    config = Config()
    config.algorithm.pair_loss = "strong"
    scores, none = torch.tensor([1.0, 3.0, 2.0, 0.5]), torch.zeros(0)
    inputs = LossInputs(none, none, none, none, scores, {"strength": torch.tensor([2.0, 1.0])})
    assert losses.get("pairs")(config).token_loss(inputs).loss.tolist() == [4.0, -1.5]


def test_options_are_checked_where_a_loss_is_made(scaled: str) -> None:
    made: Any = with_options(losses, scaled, {"scale": 3.0})(Config())
    assert made.scale == 3.0
    with pytest.raises(ValueError, match=r"options of loss 'scaled': scal: no such option; did you mean 'scale'"):
        with_options(losses, scaled, {"scal": 3.0})


def test_the_policy_loss_says_which_terms_it_reports() -> None:
    """Before there are rows, as a rank may have none; only those that count."""
    config = Config()
    assert losses.get("policy")(config).terms == ("actor/pg_loss",)
    config.algorithm.policy_loss.kl_coef = 0.1
    config.algorithm.policy_loss.entropy_coef = 0.01
    assert losses.get("policy")(config).terms == ("actor/pg_loss", "actor/entropy_loss", "actor/kl_loss")


@pytest.mark.parametrize(
    ("columns", "error", "told"),
    [
        ("rewards", TypeError, r"'rewards' was declared as columns; .* as \['rewards'\]"),
        ({"rewards": "flot"}, ValueError, "no kind of column is 'flot'"),
    ],
)
@pytest.mark.parametrize("name", ["needs", "optional"])
def test_columns_that_cannot_be_right_are_refused_where_they_are_declared(
    name: str, columns: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        type("Mine", (Loss,), {name: columns})


def test_a_loss_without_a_formula_and_a_text_for_its_terms_are_refused() -> None:
    with pytest.raises(TypeError, match="does not write what it must: token_loss"):
        losses.register("unwritten_for_test")(type("Unwritten", (Loss,), {}))
    with pytest.raises(TypeError, match=r"Mine.terms is the text 'actor/pg_loss'"):
        type("Mine", (Loss,), {"terms": "actor/pg_loss"})
