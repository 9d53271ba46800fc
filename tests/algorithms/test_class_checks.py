"""Declarations of an algorithm's class that cannot be right."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.algorithms import Algorithm


@pytest.mark.parametrize("name", ["roles", "only_for_kl", "components", "heeds", "columns", "losses"])
def test_a_text_in_the_place_of_several_names_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name} is the text 'actor', and several .*: {name} = \('actor',\)"):
        type("Mine", (Algorithm,), {name: "actor"})


@pytest.mark.parametrize("role", ["advantage", "generate", "step", "kept", "config", "kl", "roles", "judge"])
def test_a_role_hides_nothing_of_an_algorithm(role: str) -> None:
    def judge(self: Any) -> None: ...

    with pytest.raises(TypeError, match=f"Mine.roles names '{role}', and an algorithm has something else of that name"):
        type("Mine", (Algorithm,), {"roles": ("actor", role), "judge": judge})


@pytest.mark.parametrize("name", ["components", "heeds"])
def test_what_a_class_heeds_are_settings(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name} names 'rollout_filtre', .*; did you mean 'rollout_filter'\?"):
        type("Mine", (Algorithm,), {name: ("rollout_filtre",)})
    with pytest.raises(TypeError, match=rf"Mine\.{name} names 'x', .*; there are advantage, .*, samples_per_prompt"):
        type("Mine", (Algorithm,), {name: ("max_draws", "x")})


def test_a_role_is_named_once() -> None:
    with pytest.raises(TypeError, match=r"Mine.roles names 'reward' twice"):
        type("Mine", (Algorithm,), {"roles": ("actor", "reward", "reward")})


def test_a_role_may_have_a_value_of_its_name_in_the_class() -> None:
    type("Mine", (Algorithm,), {"roles": ["actor", "judge"], "judge": None, "columns": []})


def test_what_samples_has_an_actor() -> None:
    with pytest.raises(TypeError, match=r"Mine.generates is True, but 'actor', .* its roles \(critic\); name it"):
        type("Mine", (Algorithm,), {"roles": ("critic",), "generates": True})
