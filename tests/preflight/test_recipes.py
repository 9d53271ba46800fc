"""Recipes: each says its paper and its words, is a flow's settings, and its former name as an algorithm is told."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from hybridflow.algorithms import algorithms
from hybridflow.config import compose
from hybridflow.former_names import FLOWS
from hybridflow.preflight import setting_checks

FOLDER = compose.configs_dir() / "algorithm"
OPTIONS = {file.stem: OmegaConf.load(file) for file in FOLDER.glob("*.yaml")}
RECIPES = [name for name, option in OPTIONS.items() if option.get("recipe")]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_flow_with_its_own_paper_formula_and_defaults(name: str) -> None:
    option, text = OPTIONS[name], (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    words = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert option.recipe == name and option.name in algorithms and option.name not in RECIPES
    assert option.paper in words and "# Defaults: " in words and "#   " in words, "the formula stands indented"


def test_every_option_is_a_flow_of_that_name_or_a_recipe() -> None:
    flows = {name for name, option in OPTIONS.items() if option.name == name}
    assert sorted([*flows, *RECIPES]) == sorted(OPTIONS)
    assert sorted(RECIPES) == sorted({*FLOWS, "gdpo", "reinforce_plus_plus_baseline"})
    assert all(OPTIONS[name].name == flow for name, flow in FLOWS.items())


@pytest.mark.parametrize("name", FLOWS)
def test_the_name_of_a_recipe_in_the_place_of_a_flow_is_told_with_the_new_spelling(name: str) -> None:
    config = compose.compose("train", ["experiment=addition", f"algorithm.name={name}"]).to_config()
    told = [problem for problem in setting_checks.problems(config) if problem.startswith("algorithm.name")]
    assert told == [
        f"algorithm.name: {name} is a recipe, which is the flow {FLOWS[name]} with settings of its own: choose "
        f"it by algorithm={name}; or, in a file that has all of its settings, write name: {FLOWS[name]}"
    ]
