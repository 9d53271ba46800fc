"""What is said of a value of a wrong type: in our words, with an example that is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException, ValidationError

from hybridflow import preflight
from hybridflow.config import key_suggestions, wrong_types
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError

SCHEMA = OmegaConf.structured(Config)
VALUES: tuple[object, ...] = (
    3,
    -1.5,
    "abc",
    True,
    None,
    [],
    [3],
    ["abc"],
    [None],
    [[1]],
    {"a": 1},
    {"a": None},
    {"a": ["b", None]},
)
LIBRARYS = ("Invalid", "convert", "Optional", "ListConfig", "DictConfig", "subclass", "???", "<class", "full_key")


def set_to(key: str, value: object) -> OmegaConfBaseException | None:
    """The error that setting a key of the schema raises."""
    try:
        OmegaConf.update(SCHEMA, key, value)  # as Hydra does
    except (ValidationError, ConfigTypeError) as error:
        return error
    except OmegaConfBaseException:  # of a key that there is not, or of a value that must be given
        return None
    return None


def test_of_every_setting_each_wrong_type_is_told_with_an_example_that_is_right() -> None:
    told = 0
    for key in key_suggestions.all_keys():
        for value in VALUES:
            error = set_to(key, value)
            if error is None:
                continue
            line = wrong_types.described(str(error.full_key), error)
            assert line is not None and line.startswith(f"{error.full_key}: "), (key, value, str(error))
            assert not any(word in line for word in LIBRARYS) and "\n" not in line, line
            example = re.search(r", as (\S+)$", line)
            assert example, line
            right, text = example[1].split("=")
            assert set_to(right, yaml.safe_load(text)) is None, line
            told += 1
    assert told > 1000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("profile_steps=3", "wrong type: 3 given; a list of whole numbers (at least 0) was expected, as KEY=[3]"),
        ("profile_steps={a:1}", "wrong type: values by name given; a list of whole numbers (at least 0) was expected"),
        ("metric_sinks=jsonl", "wrong type: 'jsonl' given; a list of texts was expected, as KEY=[jsonl]"),
        ("sink_options=[1]", "wrong type: a list given; values by name were expected, as KEY.NAME=VALUE"),
        ("call_timeouts_s={actor: soon}", "wrong type: 'soon' given; a number (at least 1 and at most 31536000) was"),
        ("print_every_step=maybe", "wrong type: 'maybe' given; true or false was expected, as KEY=false"),
        ("steps=1.5", "wrong type: 1.5 given; a whole number (at least 0) was expected, as KEY=100"),
        ("steps=null", "wrong type: null given; a whole number (at least 0) was expected, as KEY=100"),
        ("stop_at_accuracy=true", "true given; a number (at least 0 and at most 1), or null was expected, as KEY=1"),
        ("full_disk=go-on", "no such value: 'go-on' given; one of stop, go_on was expected; did you mean go_on?"),
        ("full_disk=3", "wrong type: 3 given; one of stop, go_on was expected, as KEY=stop"),
    ],
)
def test_what_was_given_and_what_is_wanted(given: str, told: str) -> None:
    key, _, value = given.partition("=")
    with pytest.raises(ConfigError) as error:
        preflight.load(overrides=["experiment=addition", f"trainer.{given}"])
    line = str(error.value)
    assert told.replace("KEY", f"trainer.{key}") in line
    assert line.startswith(f"trainer.{key}") and line.endswith(f"(trainer.{key}={value} on the command line)")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: 3", "run: wrong type: 3 given; settings by name (name, root, seed) were expected, as run.name=VALUE"),
        ("actor: {optimizer: fast}", "actor.optimizer: wrong type: 'fast' given; settings by name (lr, "),
        ("trainer: [1]", "trainer: wrong type: [1] given; settings by name ("),
        ("trainer: {profile_steps: {a: 1}}", "trainer.profile_steps: wrong type: {'a': 1} given; a list of whole numb"),
        ("placement: {pools: [1]}", "placement.pools: wrong type: [1] given; values by name were expected, as placem"),
        ("run: {seed: one}", "run.seed: wrong type: 'one' given; a whole number"),
    ],
)
def test_a_file_is_named_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\ndefaults: [addition]\n{text}\n")
    with pytest.raises(ConfigError) as error:
        preflight.load(overrides=["experiment=mine"], config_dir=tmp_path)
    assert str(error.value).startswith(told) and str(error.value).endswith("mine.yaml:3)"), str(error.value)


def test_a_section_is_set_by_its_keys() -> None:
    with pytest.raises(ConfigError) as error:
        preflight.load(overrides=["experiment=addition", "actor.parallel=2"])
    assert "2 given; settings by name (tensor, pipeline," in str(error.value)
    assert ") were expected, as actor.parallel.tensor=1 (actor.parallel=2 on" in str(error.value)


def test_a_secret_that_is_given_at_a_wrong_place_is_not_shown() -> None:
    error = set_to("trainer.steps", {"api_key": "hunter2"})
    assert error is not None
    line = wrong_types.described("trainer.steps", error)
    assert line is not None and "values by name given; a whole number" in line and "hunter2" not in line


def test_a_key_that_the_schema_does_not_have_is_another_matter() -> None:
    assert wrong_types.described("trainer.nosuch", OmegaConfBaseException("")) is None
    assert wrong_types.described("trainer.steps.x", OmegaConfBaseException("")) is None
