"""A role's turn: what waits in host memory between the calls of a role, and that it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel
from tests.engines.rank_functions import same
from tests.spmd import Ranks
from tests.workers import rank_functions
from tests.workers.test_reward_model import some_pairs

pytestmark = pytest.mark.ranks


def test_between_turns_a_role_holds_what_it_was_told_to(ranks2: Ranks, tiny: GetModel) -> None:
    folder, layout, pairs = tiny(architecture="qwen2"), Layout(2), some_pairs()

    def run(weights: bool, optimizer: bool) -> list[tuple[list[int], list[dict[str, float]]]]:
        return ranks2.run(rank_functions.offloading, folder, layout, pairs, weights, optimizer)

    (plain, _), kept = run(False, False), {}
    for weights, optimizer in ((True, False), (False, True), (True, True)):
        kept[weights, optimizer], _ = run(weights, optimizer)
        for found, expected in zip(kept[weights, optimizer][1], plain[1], strict=True):
            assert list(found) == list(expected)
            assert same(np.array([*found.values()]), np.array([*expected.values()])), "the same metrics"
    of_weights, gradients, state = (plain[0][kind::3] for kind in range(3))
    assert min(of_weights) > 0 and min(gradients) > 0 and state[-1] > 2 * of_weights[-1]
    everything, _ = kept[True, True]
    assert everything == [0] * 15
    only_optimizer, _ = kept[False, True]
    assert only_optimizer[0::3] == of_weights and only_optimizer[1::3] == [0] * 5
    assert only_optimizer[2::3] == of_weights, "in float32 the weights are their own masters"
    only_weights, _ = kept[True, False]
    assert only_weights[0::3] == [0] * 5 and only_weights[1::3] == gradients


@pytest.mark.parametrize(("weights", "optimizer"), [(False, False), (True, False), (True, True)])
def test_all_of_a_role_waits_while_another_engine_starts(
    weights: bool, optimizer: bool, ranks1: Ranks, tiny: GetModel
) -> None:
    """vLLM looks for free memory when it is made. Afterwards each role holds what it was told to."""
    [(before, meanwhile, after)] = ranks1.run(
        rank_functions.beside_others, tiny(architecture="qwen2"), Layout(), weights, optimizer
    )
    assert meanwhile == [0, 0, 0] and after == before
    assert any(before) == (not (weights and optimizer))


def test_a_role_lays_its_memory_down_also_after_a_failure(ranks1: Ranks, tiny: GetModel) -> None:
    [held] = ranks1.run(rank_functions.after_failures, tiny(architecture="qwen2"), Layout())
    assert held == [[0, 0, 0]] * 3
