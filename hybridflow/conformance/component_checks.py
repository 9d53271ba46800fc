"""Parts of algorithms, tried as the functions that they are: no ranks, no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from hybridflow.batch.columns import row_numbers
from hybridflow.conformance.discovery import Registered
from hybridflow.conformance.environment_checks import try_environment, try_tool
from hybridflow.conformance.estimator_checks import try_advantage
from hybridflow.conformance.expectations import (
    ExpectationError,
    Results,
    expect,
    expect_again,
    expect_defaults,
    expect_floats,
    violations,
)
from hybridflow.conformance.loss_checks import expect_gradient, try_loss, try_pair_loss, try_policy_loss
from hybridflow.conformance.protocol_checks import try_protocol
from hybridflow.conformance.sample_rows import Case, cases, policy_cases
from hybridflow.conformance.sampler_checks import try_sampler
from hybridflow.conformance.sink_checks import try_sink
from hybridflow.conformance.task_checks import answers_for, try_grader, try_task
from hybridflow.dispatch import methods
from hybridflow.losses.aggregations import totals
from hybridflow.losses.corrections import CorrectionInputs
from hybridflow.losses.reward_shapings import ShapingInputs
from hybridflow.losses.rollout_filters import FilterInputs
from hybridflow.tasks import graders

LIMIT = 6  # tokens that a response of these rows may have


def results(registered_components: Registered) -> Results:
    """Yield for each component that can be tried so the expectations that it violates."""
    for kind, check in CHECKS.items():
        for name, component in registered_components.get(kind, {}).items():
            own = _of_grader(name, registered_components) if kind == "grader" else {}
            yield f"{kind} {name!r}", violations(partial(check, component, **own))


def _of_grader(name: str, registered_components: Registered) -> dict[str, Any]:
    """Return how a grader is to be tried: on the answers of its task, as it was registered."""
    return {
        "answers": answers_for(name, registered_components["task"].values()),
        "batched": graders.is_batched(name),
        "token_rewards": graders.gives_token_rewards(name),
    }


def try_shaping(shaping: Callable[..., Any]) -> None:
    """Expect [R] finite rewards."""
    expect_defaults(shaping)
    for case in cases():
        on = f"on {case.name}: "
        ended = ["length" if length >= LIMIT else "end" for length in case.lengths.tolist()]
        inputs = (ShapingInputs(case.rewards.clone(), case.lengths.clone(), LIMIT, ended) for _ in range(2))
        shaped, again = map(shaping, inputs)  # each with a state of its own, as at the start of a run
        expect_floats(on, "the result", shaped, len(case.lengths), "row")
        expect_again(on, shaped, again)


def try_filter(rows_that_stay: Callable[..., Any]) -> None:
    """Try a filter: the numbers of the rows that stay are what `select` takes, in any order."""
    expect_defaults(rows_that_stay)
    for case in cases():
        on = f"on {case.name}: "
        kept, again = (_kept(on, rows_that_stay, case) for _ in range(2))
        expect_again(on, kept, again)


def _kept(on: str, rows_that_stay: Callable[..., Any], case: Case) -> np.ndarray:
    rewards, group, lengths = (column.clone().numpy() for column in (case.rewards, case.group_id, case.lengths))
    kept = rows_that_stay(FilterInputs(rewards, group, lengths, lengths == LIMIT))
    try:
        return row_numbers(kept, len(lengths))
    except (TypeError, IndexError) as error:
        raise ExpectationError(f"{on}no numbers of rows: {error}") from None


def try_correction(correction: Callable[..., Any]) -> None:
    """Expect [T] finite weights, also where training and generation are far apart, that are each row's own."""
    expect_defaults(correction)
    for case in policy_cases():
        on = f"on {case.name}: "
        weights, again = (correction(CorrectionInputs(*case.log_probs(), case.lengths.clone())) for _ in range(2))
        expect_floats(on, "the result", weights, case.tokens, "token")
        expect_again(on, weights, again)
        both = (log_probs.split(case.lengths.tolist()) for log_probs in case.log_probs())
        rows = zip(*both, case.lengths.split(1), strict=True)
        alone = torch.cat([correction(CorrectionInputs(*row)) for row in rows])
        expect(torch.allclose(alone, weights), f"{on}the weights of a row depend on which others are given with it")


def try_kl(estimate: Callable[..., Any]) -> None:
    """Expect [T] finite estimates with a finite gradient to the policy's log-probs."""
    for case in policy_cases():
        on = f"on {case.name}: "
        reference, current = case.log_probs()
        current.requires_grad_()
        estimates = estimate(current, reference)
        expect_floats(on, "the estimate", estimates, case.tokens, "token")
        expect_gradient(on, estimates, current, flows=0 < case.apart < 1)
        expect_again(on, estimates, estimate(current, reference))


def try_aggregation(weights_of: Callable[..., Any]) -> None:
    """Expect [T] finite weights that do not depend on how a step's rows are cut."""
    for case in policy_cases():
        on = f"on {case.name}: "
        lengths = case.lengths
        counts = totals(lengths)
        weights = weights_of(lengths, *counts, limit=LIMIT)
        expect_floats(on, "the result", weights, case.tokens, "token")
        expect_again(on, weights, weights_of(lengths, *counts, limit=LIMIT))
        half = len(lengths) // 2
        apart = torch.cat([weights_of(rows, *counts, limit=LIMIT) for rows in (lengths[:half], lengths[half:])])
        expect(torch.allclose(apart, weights), f"{on}the weights depend on how the rows are cut into micro-batches")


def try_controller(make: Callable[..., Any]) -> None:
    """Try a controller: its coefficient stays finite, and its state comes back from JSON."""
    expect_defaults(make)
    one, other, twin = (make(0.1) for _ in range(3))
    for kl in (0.0, 0.01, 10.0):
        one.update(kl)
        twin.update(kl)
        expect(bool(np.isfinite(one.coef)), f"not finite: coef is {one.coef} after a KL of {kl}")
        expect_again(f"after a KL of {kl}: ", one.coef, twin.coef)
    other.restore(json.loads(json.dumps(one.state())))
    expect(other.coef == one.coef, f"restore(state()) gives a coef of {other.coef} in place of {one.coef}")


def try_role(role: type) -> None:
    """Expect a protocol that exists of every method."""
    try:
        methods(role)
    except KeyError as error:
        raise ExpectationError(error.args[0]) from None


CHECKS: Mapping[str, Callable[..., None]] = {
    "task": try_task,
    "grader": try_grader,
    "environment": try_environment,
    "tool": try_tool,
    "sampler": try_sampler,
    "dispatch protocol": try_protocol,
    "role": try_role,
    "reward shaping": try_shaping,
    "advantage estimator": try_advantage,
    "rollout filter": try_filter,
    "rollout correction": try_correction,
    "policy loss": try_policy_loss,
    "loss": try_loss,
    "loss of pairs": try_pair_loss,
    "loss aggregation": try_aggregation,
    "KL estimator": try_kl,
    "KL controller": try_controller,
    "metric sink": try_sink,
}
