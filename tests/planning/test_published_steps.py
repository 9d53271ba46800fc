"""The simulators predict steps that NeMo-RL has published, from constants that the run had no part in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fitted_constants import fit, kendall, predicted_left_out
from benchmarks.published_rows import published_steps, sources
from benchmarks.published_simulation import (
    capped_lengths,
    generation_layout,
    hardware_of,
    model_of,
    phases_of,
    predicted,
    spec_of,
    sum_of_phases,
    training_layout,
    usual,
)
from benchmarks.published_steps import KENDALL, MAPE, baseline, figures, fit_steps, kept_constants, predicted_unseen
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.model_arithmetic import parameters
from hybridflow.planning.run_spec import FlowCall, Work
from hybridflow.planning.step_simulation import estimate_step


def test_published_steps_are_predicted_unseen() -> None:
    steps = published_steps()
    # One round from where the last fit ended: enough, unless what it was fitted to has changed.
    unseen = predicted_unseen(steps, fit_steps(steps, kept_constants(), rounds=1), rounds=1)
    found = figures(steps, unseen)
    assert found["mape"] <= MAPE
    assert found["kendall"] >= KENDALL
    assert found["signs"] == found["pairs"] == 32
    slower = [step for step in steps if step.steps_off == 1 and (step.system, step.gpus) == ("GB200", 16)]
    assert len(slower) == 2  # one step off takes longer there, as the signs say


def test_constants_that_were_not_fitted_predict_worse() -> None:
    steps = published_steps()
    assert figures(steps, predicted(steps, usual()))["mape"] > MAPE
    assert figures(steps, baseline(steps))["mape"] > MAPE


def test_shapes_have_as_many_parameters_as_their_cards_say() -> None:
    for step in {step.model: step for step in published_steps()}.values():
        model = model_of(step, trains=True)
        assert parameters(model) == pytest.approx(1e9 * sources()["models"][step.model]["parameters"], rel=0.01)


def test_a_step_off_is_as_long_as_the_schedulers_own_code_has_it() -> None:
    step = next(one for one in published_steps() if one.model == "Qwen3-235B-A22B" and one.steps_off == 1)
    constants = kept_constants()
    hardware = hardware_of(step, constants)
    flow = [
        FlowCall("actor", "generate_sequences", Work.generate, True, step.rollouts),
        *[FlowCall("reference", "score", Work.score, False, step.rollouts, (0,)) for _ in range(step.score_passes)],
        FlowCall("actor", "update_actor", Work.train, False, step.train_rows, (1,)),
    ]
    models = {"actor": model_of(step, trains=True), "reference": model_of(step, trains=False)}
    seats = {
        "actor": Seat("main", training_layout(step)),
        "reference": Seat("main", training_layout(step)),
        "rollout": Seat("rollout", generation_layout(step)),
    }
    pools = {"main": step.training_gpus, "rollout": step.generation_gpus}
    spec = replace(spec_of(step), flow=tuple(flow), models=models)
    simulated = estimate_step(spec, Arrangement(pools, seats), hardware, draws=0).seconds.mean
    assert simulated == pytest.approx(sum_of_phases(step, phases_of(step, constants)), rel=0.1)


@given(most=st.floats(100, 1e5), share=st.floats(0.02, 0.98))
@settings(max_examples=20, deadline=None)
def test_capped_lengths_have_the_mean_that_is_known(most: float, share: float) -> None:
    lengths = capped_lengths(share * most, most)
    assert lengths.max <= most * (1 + 1e-9)
    assert lengths.mean == pytest.approx(share * most, rel=0.1)


def test_a_fit_finds_the_constants_that_made_its_rows() -> None:
    parts = np.random.default_rng(1).uniform(0.1, 1.0, (12, 3))
    made = np.array([0.5, 3.0, 20.0])

    def seconds(rows: Sequence[int], logarithms: np.ndarray) -> np.ndarray:
        return parts[list(rows)] @ np.exp(logarithms)

    observed = parts @ made
    observed[5] *= 1.3  # one row is not like the others
    fitted = fit(seconds, observed, np.zeros(3))
    alone = predicted_left_out(seconds, observed, fitted, range(12), rounds=8)
    assert alone[5] == pytest.approx(observed[5] / 1.3, rel=0.01)
    assert abs(np.exp(fitted.logarithms) / made - 1).max() > 0.01  # the fit to all rows has it in


def test_kendall_counts_pairs_in_order() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
