"""Advantage estimators, tried as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybridflow.conformance.expectations import expect, expect_again, expect_defaults, expect_floats
from hybridflow.conformance.sample_rows import Case, cases
from hybridflow.dispatch import declarations
from hybridflow.losses.advantages import FIELDS, AdvantageInputs
from hybridflow.losses.rewards import token_rewards
from hybridflow.roles import roles


class Watched(AdvantageInputs):
    """Inputs that know which of their fields were asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name in FIELDS:
            vars(self).setdefault("asked", set()).add(name)
        return super().__getattribute__(name)


def try_advantage(estimate: Callable[..., Any]) -> None:
    """Expect [T] finite advantages and returns; inputs left alone; as many sums over ranks whatever the rows are."""
    expect_defaults(estimate)
    declared = tuple(getattr(estimate, "_needs", ()))
    sums = set()
    for case in cases():
        on = f"on {case.name}: "
        calls = [0]

        def all_reduce(vector: Tensor, calls: list[int] = calls) -> Tensor:
            calls[0] += 1
            return vector.clone()

        estimates = _estimated(estimate, inputs_for(case, declared, all_reduce), declared)
        pair = isinstance(estimates, tuple) and len(estimates) == 2
        expect(pair, f"{on}wrong type: it gave a {type(estimates).__name__}; (advantages, returns) was expected")
        for name, column in zip(("advantages", "returns"), estimates, strict=True):
            expect_floats(on, name, column, case.tokens, "token")
        sums.add(calls[0])
        expect_again(on, estimates, _estimated(estimate, inputs_for(case, declared, all_reduce), declared))
    expect(
        len(sums) == 1,
        f"it sums over ranks {min(sums)} times for some rows and {max(sums)} times for others: a rank with few rows, "
        "or none, would leave the others waiting; call all_reduce equally often",
    )


def _estimated(estimate: Callable[..., Any], inputs: Watched, declared: tuple[str, ...]) -> Any:
    before = {name: value.clone() for name, value in vars(inputs).items() if isinstance(value, Tensor)}
    vars(inputs).pop("asked", None)
    try:
        estimates = estimate(inputs)
    except (TypeError, AttributeError, ValueError, KeyError):
        asked = sorted(vars(inputs).get("asked", set()) - set(declared))
        expect(not asked, f"it reads {', '.join(asked)} and does not say so: put @needing({_quoted(asked)}) above it")
        raise
    changed = [name for name, value in before.items() if not torch.equal(value, getattr(inputs, name))]
    expect(not changed, f"it changes its inputs in place: {', '.join(changed)}")
    return estimates


def inputs_for(case: Case, declared: tuple[str, ...], all_reduce: Callable[[Tensor], Tensor]) -> Watched:
    """Return the rows of a case with the declared columns, and no others."""
    rows = len(case.lengths)
    tokens = case.tokens
    ragged = ragged_columns()
    return Watched(
        token_rewards(case.rewards, case.lengths),
        case.lengths.clone(),
        values=case.noise(tokens, 5) if "values" in declared else None,
        group_id=case.group_id.clone() if "group_id" in declared else None,
        baseline_rewards=case.noise(rows, 6) if "baseline_rewards" in declared else None,
        columns={
            name: case.noise(tokens if name in ragged else rows, 7 + number)
            for number, name in enumerate(declared)
            if name not in FIELDS
        },
        all_reduce=all_reduce,
    )


def ragged_columns() -> set[str]:
    """Return the columns that some role declares as ragged."""
    declared = (method for role in roles for method in declarations(roles.get(role)).values())
    return {name for method in declared for name, kind in method.kinds.items() if kind.startswith("ragged")}


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
