"""The options of parts: names, values, and that each number of ours says what it may be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hybridflow.bounds import Share, parameters
from hybridflow.losses.advantages import advantages
from hybridflow.losses.corrections import corrections
from hybridflow.losses.kl_controllers import kl_controllers
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.losses.reward_shapings import reward_shapings
from hybridflow.losses.rollout_filters import rollout_filters
from hybridflow.options import effective_options, faults, taken_by
from hybridflow.tasks import tasks

REGISTRIES = (advantages, policy_losses, corrections, reward_shapings, rollout_filters, kl_controllers, tasks)


def test_every_number_among_the_options_of_our_parts_has_bounds_or_a_reason() -> None:
    seen, bare = 0, []
    for registry in REGISTRIES:
        for name in registry:
            part = registry.get(name)
            numbers = {key: found for key, found in parameters(part).items() if key in taken_by(part)}
            seen += len(numbers)
            bare += [f"{registry.kind} {name}: {key}" for key, found in numbers.items() if found.bounds is None]
            # `inspect` tells what is a number by its default even if an annotation could not be read.
            defaults = {key: option.default for key, option in taken_by(part).items()}
            bare += [f"{name}: {key}" for key, value in defaults.items() if type(value) is float and key not in numbers]
    assert seen > 20 and bare == []


def part(rows: list[int], share: Share = 0.5, name: str = "a", scale=1, *, sure: bool = True, free=None) -> None:
    """A part of a user's own: bounds are no duty."""


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, {}),
        ({"share": 1, "name": "b", "scale": 0.5, "sure": False, "free": [1, "x"]}, {}),
        ({"share": 0}, {"share": "0 given, more than 0 and at most 1 expected"}),
        ({"share": None}, {"share": "None given, a number was expected"}),
        ({"name": 3}, {"name": "3 given, of type int; str was expected"}),
        ({"sure": "no"}, {"sure": "'no' given, of type str; bool was expected"}),
        ({"scale": True}, {"scale": "True given, of type bool; int was expected"}),
        ({"scale": float("inf")}, {"scale": "inf given, a finite number was expected"}),
        ({"rows": [1]}, {"rows": "no such option; the component takes share=0.5, name='a', scale=1, sure=True, "
                                 "free=None"}),
        ({"shar": 1}, {"shar": "no such option; did you mean 'share'? the component takes share=0.5, name='a', "
                               "scale=1, sure=True, free=None"}),
    ],
)  # fmt: skip
def test_an_option_is_held_to_what_the_part_says(options: dict[str, object], wrong: dict[str, str]) -> None:
    assert faults(part, options) == wrong


def test_what_another_part_would_have_taken_is_dropped_by_null() -> None:
    assert faults(part, {"gamma": None}) == {} and effective_options(part, {"gamma": None, "free": None}) == {
        "free": None
    }


def test_a_class_a_wrapper_and_a_part_that_takes_any_name() -> None:
    @dataclass
    class Move:
        coef: float
        gain: Share = 0.1
        target: float = 1.0

    def anything(rows: object, **options: object) -> None: ...

    assert faults(Move, {"gain": 2, "target": "1"}) == {
        "gain": "2 given, more than 0 and at most 1 expected",
        "target": "'1' given, a number was expected",
    }
    assert faults(anything, {"what": 1}) == {} and effective_options(anything, {"what": None}) == {"what": None}


def test_an_option_without_a_default_must_be_given() -> None:
    def needs(rows: object, *, target: Share) -> None: ...

    assert faults(needs, {}) == {"target": "must be given; the component takes target"}
    assert faults(needs, {"target": 0.5}) == {}
