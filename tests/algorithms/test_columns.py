"""Which columns an algorithm reads: each loss that a flow's updates minimize is named by it, and finds its columns."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import ClassVar

import pytest

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.algorithms.columns import readers
from hybridflow.config import compose
from hybridflow.preflight import component_checks

OF_UPDATES = {
    "update_actor": "policy",
    "update_supervised": "supervised",
    "update_preferred": "dpo",
    "update_critic": "value",
    "update_cost_critic": "cost_value",
    "update_reward_model": "pairs",
}
OURS = [name for name in algorithms if algorithms.get(name).__module__.startswith("hybridflow.algorithms.")]


@pytest.mark.parametrize("name", OURS)
def test_a_flow_names_the_losses_that_its_updates_minimize(name: str) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(algorithms.get(name))))
    called = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert {OF_UPDATES[method] for method in called if method in OF_UPDATES} == {*algorithms.get(name).losses}


@pytest.mark.parametrize("option", compose.options("algorithm"))
def test_every_column_that_an_algorithm_of_ours_reads_is_given(option: str) -> None:
    config = compose.compose("train", ["experiment=addition", f"algorithm={option}"]).to_config()
    found = list(readers(config.algorithm, algorithms.get(config.algorithm.name)))
    assert found and all(reader.missing == [] for reader in found)


class Distilling(Algorithm):
    roles = ("actor",)
    components = ()
    losses: ClassVar = ("value", "reverse_kil")


def test_a_column_that_nobody_gives_and_a_loss_that_nobody_registers_are_told() -> None:
    config = compose.compose("train", ["experiment=addition", "algorithm=grpo"]).to_config()
    unknown, *missing = component_checks.problems(config, Distilling)
    assert unknown.startswith("algorithm.name: no loss is named 'reverse_kil'")
    assert missing == [
        "algorithm.name: loss 'value' reads the column 'values', which is given by critic.compute_values; grpo does "
        "not name it among its columns"
    ]
