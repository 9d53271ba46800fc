"""Keys of the settings: every one has a meaning, which its comment in the schema is."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from hybridflow.bounds import Count, Seconds
from hybridflow.config import setting_keys
from hybridflow.config.schema import Config, Device
from hybridflow.config.setting_keys import Setting, comments, declared


@dataclass
class Inner:
    """What another holds."""

    name: str = "a"  # its name
    wait_s: Seconds = 3.0


@dataclass
class Base:
    """What another derives from."""

    often: Count = 2  # how often
    late: bool = False  # replaced below


@dataclass
class Outer(Base):
    """Fields with their comments in each place where one may stand."""

    # a comment above,
    # on two lines
    sizes: list[Count] = field(default_factory=list)
    inner: Inner = field(default_factory=lambda: Inner(name="b"))  # chooses one
    late: bool = True  # whether it is
    text = 3  # of the class, no field

    bare: str | None = None

    text_with_hash: str = "# no comment"
    device: Device = Device.auto  # with a # in it
    anything: dict[str, Any] = field(default_factory=dict)


def test_a_comment_stands_behind_a_field_or_above_it() -> None:
    assert comments(Outer) == {
        "often": "how often",
        "late": "whether it is",
        "sizes": "a comment above, on two lines",
        "inner": "chooses one",
        "bare": "",
        "text_with_hash": "",
        "device": "with a # in it",
        "anything": "",
    }


def test_keys_with_their_defaults_and_what_they_may_be() -> None:
    Outer.__annotations__["inner"] = Inner
    found = {setting.key: (setting.given, setting.kind, setting.meaning) for setting in declared(Outer, "mine.")}
    assert found == {
        "mine.often": ("2", "at least 1", "how often"),
        "mine.late": ("true", "true or false", "whether it is"),
        "mine.sizes": ("[]", "list: at least 1", "a comment above, on two lines"),
        "mine.sizes.*": ("", "at least 1", ""),
        "mine.inner.name": ("b", "text", "chooses one; its name"),
        "mine.inner.wait_s": ("3.0", "seconds, at least 1 and at most 31536000", "chooses one"),
        "mine.bare": ("null", "text, or null", ""),
        "mine.text_with_hash": ("# no comment", "text", ""),
        "mine.device": ("auto", "auto, cpu, gpu", "with a # in it"),
        "mine.anything": ("{}", "by name: anything", ""),
    }


def test_a_class_without_a_source_has_no_comments() -> None:
    assert comments(make_dataclass("Made", [("a", int, 3)])) == {}


KEYS = list(declared(Config))


@pytest.mark.parametrize("setting", KEYS, ids=[setting.key for setting in KEYS])
def test_every_key_has_a_meaning(setting: Setting) -> None:
    assert setting.meaning or setting.key.endswith(".*"), f"{setting.key}: say in the schema, in a comment, what it is"
    assert setting.meaning.count("`") % 2 == 0 and "|" not in setting.meaning, "it stands in a table of Markdown"


def test_roles_that_are_alike_are_told_once() -> None:
    keys = [setting.key for setting in KEYS]
    assert len(keys) == len(set(keys)) and "ROLE.optimizer.lr" in keys and "actor.optimizer.lr" not in keys
    assert set(setting_keys.roles()) >= {"actor", "critic", "reward_model"} and "rollout" not in setting_keys.roles()


def test_a_component_has_the_default_of_its_place() -> None:
    by_key = {setting.key: setting.given for setting in KEYS}
    assert by_key["algorithm.reward_kl_control.name"] == "fixed" and by_key["algorithm.rollout_filter.name"] == "none"
