"""Sections of roles of the user: checked, composed and shown like ours."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import pytest
from omegaconf import MISSING, OmegaConf

from hybridflow.bounds import Bounds
from hybridflow.config import sections
from hybridflow.config.schema import Config
from hybridflow.errors import NameTakenError


class Mode(StrEnum):
    words = "words"
    tokens = "tokens"


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Scoring:
    weight: Annotated[float, Bounds(at_least=0)] = 0.2
    mode: Mode = Mode.words
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)


@dataclass
class Unfrozen:
    path: str = MISSING
    inner: Inner = field(default_factory=Inner)


@dataclass
class Bare:
    weight: float


@dataclass
class Odd:
    weight: complex = 1j


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sections, "_added", {})
    sections.add("scorer", Scoring)
    yield


def test_without_any_the_settings_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_added", {})
    assert sections.whole() is Config and sections.added() == ()


@pytest.mark.usefixtures("scorer")
def test_a_section_stands_beside_ours() -> None:
    assert sections.added() == ("scorer",)
    assert sections.whole()().scorer == Scoring()  # type: ignore[attr-defined]
    assert issubclass(sections.whole(), Config) and sections.whole() is sections.whole()


@pytest.mark.usefixtures("scorer")
def test_a_frozen_section_can_be_composed_over() -> None:
    tree = OmegaConf.merge(sections.schema(), {"scorer": {"weight": 3, "mode": "tokens", "inner": {"depth": 2}}})
    found: Any = OmegaConf.to_object(tree.scorer)
    assert found == Scoring(3.0, Mode.tokens, [], Inner(2))


@pytest.mark.usefixtures("scorer")
def test_settings_travel_to_a_process_that_has_the_module() -> None:
    from ray import cloudpickle

    found = pickle.loads(cloudpickle.dumps(sections.whole()()))
    assert found.scorer == Scoring() and isinstance(found, Config)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("mine", dict, "must be a dataclass"),
        ("mine", Scoring(), "must be a dataclass"),
        ("my-role", Scoring, "cannot be written as a key"),
        ("mine", Bare, "have no default for weight: give one, or omegaconf.MISSING"),
        ("mine", Odd, "have a field that settings cannot hold: .*complex"),
    ],
)
def test_what_cannot_be_a_section_is_refused(name: str, settings: Any, told: str) -> None:
    with pytest.raises(TypeError, match=f"role '{name}': its settings .* {told}"):
        sections.add(name, settings)
    assert name not in sections.added()


def test_a_name_of_ours_is_taken() -> None:
    with pytest.raises(NameTakenError, match=r"role 'trainer': .* hybridflow has one"):
        sections.add("trainer", Scoring)


@pytest.mark.parametrize("settings", [Scoring(weight=2.0), Unfrozen(path="here")])
def test_a_frozen_copy_reads_alike_and_refuses_changes(settings: Any) -> None:
    found = sections.frozen(settings)
    assert isinstance(found, type(settings)) and vars(found).keys() == vars(settings).keys()
    for name in vars(settings):
        with pytest.raises(FrozenInstanceError, match=name):
            setattr(found, name, None)
    with pytest.raises(FrozenInstanceError):
        found.inner.depth = 3
    assert settings.inner.depth == found.inner.depth == 1


def test_a_frozen_copy_is_no_longer_the_original() -> None:
    settings = Unfrozen(path="here")
    found = sections.frozen(settings)
    settings.path = "there"
    assert found.path == "here"
