"""Sections of roles of the user: checked, composed and shown like ours."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from omegaconf import MISSING, OmegaConf

from hybridflow.bounds import Bounds
from hybridflow.config import compose, resume_diff, sections, setting_keys
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError, NameTakenError
from hybridflow.parallel.layout import Layout
from hybridflow.preflight import load
from hybridflow.roles import roles
from hybridflow.workers import Context


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


@dataclass
class Unknown:
    weight: Nowhere = 1  # type: ignore[name-defined]  # noqa: F821


@dataclass
class BoundedText:
    inner: Inner = field(default_factory=Inner)
    name: Annotated[str, Bounds(at_least=1)] = "a"


@dataclass(slots=True)
class Slotted:
    weight: float = 0.5
    inner: Inner = field(default_factory=Inner)


@dataclass
class Choosy:
    weight: float = 0.5

    def __post_init__(self) -> None:
        if self.weight == 1:
            raise ValueError("no whole weight is taken")
        if self.weight == 2:
            raise RuntimeError("gone")


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
        ("mine", Unknown, "have a field that settings cannot hold: name 'Nowhere' is not defined"),
        ("mine", BoundedText, "have Bounds for name, which is no number: int or float was expected"),
    ],
)
def test_what_cannot_be_a_section_is_refused(name: str, settings: Any, told: str) -> None:
    with pytest.raises(TypeError, match=f"role '{name}': its settings .* {told}"):
        sections.add(name, settings)
    assert name not in sections.added()


@pytest.mark.parametrize(("name", "whose"), [("trainer", "hybridflow"), ("hydra", "Hydra"), ("defaults", "Hydra")])
def test_a_name_of_ours_is_taken(name: str, whose: str) -> None:
    with pytest.raises(NameTakenError, match=rf"role '{name}': .* {whose} has one"):
        sections.add(name, Scoring)


def test_settings_with_slots_are_frozen_too() -> None:
    found = sections.frozen(Slotted(2.0))
    assert (found.weight, found.inner.depth) == (2.0, 1)
    with pytest.raises(FrozenInstanceError):
        found.weight = 3.0


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


PLUGIN = """
from dataclasses import dataclass
from typing import Annotated

from omegaconf import MISSING

from hybridflow import Batch, dispatch
from hybridflow.bounds import Bounds
from hybridflow.roles import Role, roles
from hybridflow.workers import Worker


@dataclass(frozen=True)
class Settings:
    weight: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.5
    words: int = 3


@roles.register("{name}", settings=Settings)
class Judge(Role, Worker):
    light = True

    @dispatch.using("dp_proto", gives=["marks"])
    def mark(self, rows: Batch) -> Batch: ...
"""


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Load settings with a plugin whose role `judge` has a section."""
    monkeypatch.setattr(sections, "_added", {})
    monkeypatch.setattr(roles, "_components", dict(roles.registered))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "judging.py").write_text(PLUGIN.replace("{name}", "judge"))
    monkeypatch.delitem(sys.modules, "judging", raising=False)

    def loaded(*overrides: str) -> Config:
        return load("train", ["experiment=addition", "plugins=[judging]", *overrides])

    return loaded


def test_a_user_sets_it_like_any_other(judge: Callable[..., Config]) -> None:
    config: Any = judge("judge.weight=0.25")
    assert (config.judge.weight, config.judge.words) == (0.25, 3)
    assert "judge:\n  weight: 0.25\n  words: 3\n" in compose.resolved_yaml(config)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("judge.wieght=1", r"judge\.wieght: no such key; did you mean judge\.weight\?"),
        ("judeg.weight=1", r"judeg: no such key; did you mean judge\?"),
        ("judge.weight=heavy", r"judge\.weight: wrong type: .*heavy.* \(judge\.weight=heavy on the command line\)"),
        ("judge.weight=2", r"judge\.weight: 2\.0 given, at least 0 and at most 1 expected \(judge\.weight=2 on the co"),
    ],
)
def test_what_is_wrong_in_it_is_told_with_its_place(judge: Callable[..., Config], override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        judge(override)


def test_without_the_plugin_there_is_no_such_section(judge: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"judge: no such key"):
        load("train", ["experiment=addition", "judge.weight=1"])


def test_a_resumed_run_is_compared_in_it_too(judge: Callable[..., Config]) -> None:
    before, now = judge(), judge("judge.weight=0.25")
    found = resume_diff.changes(compose.resolved_yaml(before), compose.resolved_yaml(now), now)
    assert found.numbers == ["judge.weight: 0.5 in the checkpoint, 0.25 now"]
    older = compose.resolved_yaml(load("train", ["experiment=addition", "plugins=[judging]", "run.seed=1"]))
    without = older.replace("judge:\n  weight: 0.5\n  words: 3\n", "")
    assert without != older
    assert resume_diff.changes(without, older, before) == resume_diff.Changes([], [])


def test_its_numbers_are_in_the_help(judge: Callable[..., Config]) -> None:
    judge()
    assert "judge.weight" in [setting.key for setting in setting_keys.declared()]


def test_a_section_of_ours_keeps_its_name(judge: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "judging.py").write_text(PLUGIN.replace("{name}", "trainer"))
    with pytest.raises(ConfigError, match=r"judging.*role 'trainer': its settings 'Settings' need a section"):
        judge()


def test_a_worker_reads_it_and_cannot_change_it(judge: Callable[..., Config]) -> None:
    settings = Context(judge("judge.words=7"), Layout(), 0, "judge").settings
    assert settings.words == 7
    with pytest.raises(FrozenInstanceError):
        settings.words = 8
    assert Context(judge(), Layout(), 0, "grader").settings is None


@pytest.mark.parametrize(
    ("weight", "told"), [("1", "choosy: no whole weight is taken"), ("2", "choosy: RuntimeError: gone")]
)
def test_what_a_class_of_settings_raises_is_told_with_its_section(
    weight: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "_added", {})
    sections.add("choosy", Choosy)
    with pytest.raises(ConfigError) as error:
        load("train", ["experiment=addition", f"choosy.weight={weight}"])
    assert str(error.value) == f"{told} (choosy.weight={weight} on the command line)"
