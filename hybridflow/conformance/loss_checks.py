"""Losses, tried as the functions that they are: on rows of policies that are alike, apart, and far apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridflow.config.schema import Config
from hybridflow.conformance.estimator_checks import ragged_columns
from hybridflow.conformance.expectations import ExpectationError, expect, expect_again, expect_defaults, expect_floats
from hybridflow.conformance.sample_rows import Case, policy_cases
from hybridflow.losses.loss import Loss, LossInputs
from hybridflow.losses.policy_losses import PolicyInputs
from hybridflow.losses.token_loss import TokenLoss

MODEL_OUTPUTS = ("log_probs", "entropy", "values", "scores")


def try_loss(loss: type[Loss]) -> None:
    """Try a loss for `update_policy`: finite, one a token or a pair, with a gradient to what the model says."""
    expect_defaults(loss)
    made = loss(Config())
    flowed = False
    for case in policy_cases():
        on = f"on {case.name}: "
        inputs = build_inputs(made, case)
        try:
            result = made.token_loss(inputs)
        except KeyError as error:
            raise ExpectationError(
                f"it reads the column {error} and does not say so: name it among its needs"
            ) from None
        pairs = len(case.lengths)
        expect_loss(on, result, pairs if made.of_pairs else case.tokens, "pair" if made.of_pairs else "token")
        said = [getattr(inputs, name) for name in MODEL_OUTPUTS]
        flowed |= any(bool(each.any()) for each in gradients(on, result.loss, said, "what the model says"))
        expect_again(on, result.loss, made.token_loss(build_inputs(made, case)).loss)
        expect_sums(on, result, made.token_loss(_twice(inputs)))
        missing = [name for name in made.terms if name not in result.terms]
        expect(not missing, f"{on}its term {', '.join(missing)} is not among the TokenLoss's")
    expect(flowed, "gradient does not flow: it is 0 everywhere, whatever the rows are")


def build_inputs(loss: Loss, case: Case) -> LossInputs:
    """Build what a loss is given of the rows of a case, each of them twice if it is a loss of pairs."""
    lengths = case.lengths.repeat_interleave(2) if loss.of_pairs else case.lengths.clone()
    old, current = case.log_probs()
    if loss.of_pairs:
        old = old.repeat(2)
        current = current.repeat(2)
    tokens = len(current)
    declared = loss.declared()
    kinds = {name: kind for part in declared if isinstance(part, Mapping) for name, kind in part.items()}
    columns = {}
    for number, name in enumerate((*declared.needs, *declared.optional)):
        kind = kinds.get(name) or ("ragged float" if name in ragged_columns() else "float")
        size = tokens if kind.startswith("ragged") else len(case.lengths)
        values = old if name.endswith("log_probs") else case.noise(size, 20 + number)
        columns[name] = values > 0 if kind.endswith("bool") else values.long() if kind.endswith("int") else values
    return LossInputs(
        lengths,
        log_probs=current.requires_grad_(),
        entropy=case.noise(tokens, 11).abs().requires_grad_(),
        values=case.noise(tokens, 12).requires_grad_(),
        scores=case.noise(len(lengths), 13).requires_grad_(),
        columns=columns,
    )


def _twice(inputs: LossInputs) -> LossInputs:
    both = {name: torch.cat([getattr(inputs, name)] * 2) for name in ("lengths", *MODEL_OUTPUTS)}
    return LossInputs(**both, columns={name: torch.cat([column] * 2) for name, column in inputs.columns.items()})


def try_policy_loss(loss: Callable[..., Any]) -> None:
    """Expect [T] finite losses with a finite gradient to the log-probs that is not 0 everywhere, and scalar metrics."""
    expect_defaults(loss)
    for case in policy_cases():
        on = f"on {case.name}: "
        old, current = case.log_probs()
        current.requires_grad_()
        result = loss(PolicyInputs(current, old, case.advantages(), case.lengths.clone()))
        expect_loss(on, result, case.tokens, "token")
        expect_gradient(on, result.loss, current, flows=not case.apart)
        again = loss(PolicyInputs(current, old, case.advantages(), case.lengths.clone()))
        expect_again(on, result.loss, again.loss)
        twice = loss(PolicyInputs(*(torch.cat([x, x]) for x in (current, old, case.advantages(), case.lengths))))
        expect_sums(on, result, twice)


def try_pair_loss(loss: Callable[..., Any]) -> None:
    """Expect [P] finite losses with a finite gradient to the scores, and scalar metrics, whatever the labels are."""
    labels = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for case in policy_cases():
        on = f"on {case.name}: "
        pairs = len(case.lengths)
        scores = [case.noise(pairs, 5).requires_grad_(), case.noise(pairs, 5) + case.apart * case.noise(pairs, 6)]
        given_labels = {name: case.noise(pairs, 7 + number) > 0 for number, name in enumerate(labels)}
        result = loss(*scores, **given_labels)
        expect_loss(on, result, pairs, "pair")
        expect_gradient(on, result.loss, scores[0], flows=True, of="the chosen scores")
        expect_again(on, result.loss, loss(*scores, **given_labels).loss)
        twice = {name: torch.cat([values, values]) for name, values in given_labels.items()}
        expect_sums(on, result, loss(*(torch.cat([x, x]) for x in scores), **twice))


def expect_loss(on: str, result: Any, size: int, what: str) -> None:
    expect(isinstance(result, TokenLoss), f"{on}wrong type: it gave a {type(result).__name__}, not a TokenLoss")
    expect_floats(on, "the loss", result.loss, size, what)
    for name, value in (*result.metrics.items(), *result.means.items(), *result.maxima.items()):
        whole = isinstance(value, Tensor) and not value.shape and bool(torch.isfinite(value))
        actual = f"{value}" if not isinstance(value, Tensor) or not value.shape else f"of shape {tuple(value.shape)}"
        expect(whole, f"{on}metric {name!r} must be a finite scalar tensor; it is {actual}")


def expect_sums(on: str, once: TokenLoss, twice: TokenLoss) -> None:
    """Expect twice the sum of twice the rows; a mean would not double."""
    for name, total in once.metrics.items():
        again = twice.metrics.get(name, 2 * total)
        stays = bool(total.abs() > 1e-4) and bool(torch.isclose(again, total, rtol=1e-4, atol=0.0))
        expect(
            not stays,
            f"{on}metric {name!r} is the same for the rows and for all of them twice, so it is no sum over tokens: "
            "give it as TokenLoss(loss, metrics, means={...}), or maxima={...}",
        )


def expect_gradient(on: str, loss: Tensor, log_probs: Tensor, *, flows: bool, of: str = "log_probs") -> None:
    """Expect a finite gradient that reaches the log-probs, or what else it is of."""
    gradient = gradients(on, loss, [log_probs], of)
    expect(not flows or bool(gradient[0].any()), f"{on}gradient does not flow: it is 0 everywhere")


def gradients(on: str, loss: Tensor, inputs: Sequence[Tensor], of: str) -> list[Tensor]:
    """Return the gradients to those inputs that the loss has one to. Raises ExpectationError if there is none."""
    lost = f"{on}gradient does not flow: the loss has none to {of} (is there a detach, item or no_grad too many?)"
    expect(loss.requires_grad, lost)
    tensors = [each for each in torch.autograd.grad(loss.sum(), inputs, allow_unused=True) if each is not None]
    expect(bool(tensors), lost)
    finite = all(bool(torch.isfinite(each).all()) for each in tensors)
    expect(finite, f"{on}not finite: the gradient to {of} (hybridflow.losses.ratios.clamped_exp bounds a ratio)")
    return tensors
