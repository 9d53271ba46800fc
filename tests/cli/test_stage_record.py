"""Whether a stage is complete, and what is said if it is not."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow import preflight
from hybridflow.cli.stage_record import RECORD, Record, Verdict, begun, judge, key_of, read
from hybridflow.config import Config, compose
from hybridflow.errors import ConfigError

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([1])
OBJECTS = st.dictionaries(st.sampled_from(["key", "seconds", "x"]), ANYTHING)


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@cache
def config_of(*overrides: str) -> Config:
    return preflight.load("train", ["experiment=addition", *overrides])


def ran(folder: Path, before: str = "", *overrides: str, ended: bool = True) -> None:
    """What a stage of these settings leaves in its run folder."""
    config = config_of(*overrides)
    Record(key_of(config, before), 1.5 if ended else None).write(folder)
    (folder / "config.yaml").write_text(compose.resolved_yaml(config))
    if ended:
        (folder / "model").mkdir()


def judged(folder: Path, before: str = "", *overrides: str, follows_new: bool = False) -> Verdict:
    config = config_of(*overrides)
    return judge(config, key_of(config, before), folder, follows_new)


def test_the_same_settings_are_complete(tmp_path: Path) -> None:
    ran(tmp_path)
    assert judged(tmp_path) == Verdict(complete=True)
    assert read(tmp_path) == Record(key_of(config_of(), ""), 1.5)


def test_where_it_resumes_is_no_setting(tmp_path: Path) -> None:
    ran(tmp_path, "", "trainer.resume=never")
    assert judged(tmp_path).complete
    assert judged(tmp_path, "", "trainer.resume=never") == Verdict(why="trainer.resume=never")


def test_a_stage_that_was_never_run_begins_and_one_that_did_not_end_goes_on(tmp_path: Path) -> None:
    assert judged(tmp_path) == Verdict(afresh=True)
    ran(tmp_path, ended=False)
    assert judged(tmp_path) == Verdict(why="it had not ended")


def test_a_model_that_is_gone_is_made_again(tmp_path: Path) -> None:
    ran(tmp_path)
    (tmp_path / "model").rmdir()
    assert not judged(tmp_path).complete


def test_other_settings_are_told(tmp_path: Path) -> None:
    ran(tmp_path)
    found = judged(tmp_path, "", "trainer.steps=9")
    assert found == Verdict(afresh=True, why="other settings than before: trainer.steps: 300 before, 9 now")


def test_a_run_by_another_command_in_the_same_folder_is_seen(tmp_path: Path) -> None:
    """It writes its settings there, and knows nothing of the record."""
    ran(tmp_path)
    (tmp_path / "config.yaml").write_text(compose.resolved_yaml(config_of("run.seed=2")))
    assert judged(tmp_path) == Verdict(afresh=True, why="other settings than before: run.seed: 2 before, 1 now")


def test_what_came_before_counts(tmp_path: Path) -> None:
    """Also where it was interrupted after the stage before it had changed and ended."""
    ran(tmp_path, "one")
    assert judged(tmp_path, "one").complete
    assert judged(tmp_path, "other") == Verdict(afresh=True, why="a stage before it has changed")
    assert judged(tmp_path, "one", follows_new=True) == Verdict(afresh=True, why="a stage before it runs again")


def test_a_start_that_fails_leaves_the_record_of_what_is_there(tmp_path: Path) -> None:
    ran(tmp_path)
    with begun(tmp_path, "other"):
        assert read(tmp_path) == Record("other")
    assert judged(tmp_path) == Verdict(complete=True)
    with begun(tmp_path / "new", "other"):
        pass
    assert read(tmp_path / "new") is None


def test_a_run_that_began_has_its_own_record(tmp_path: Path) -> None:
    ran(tmp_path)
    with begun(tmp_path, "other"):
        (tmp_path / "config.yaml").rename(tmp_path / "moved")
        (tmp_path / "config.yaml").write_text("")
    assert read(tmp_path) == Record("other")


@settings(max_examples=2 * settings.default.max_examples)
@given(content=st.binary(max_size=30) | OBJECTS.map(encoded))
def test_any_record_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "recorded"
    folder.mkdir(exist_ok=True)
    (folder / RECORD).write_bytes(content)
    try:
        assert isinstance(read(folder), Record)
    except ConfigError as error:
        assert str(error).startswith(str(folder / RECORD)) and "Remove the file" in str(error)


def test_a_record_is_whole_whenever_the_process_ends(tmp_path: Path) -> None:
    Record("a").write(tmp_path)
    Record("b", 2.0).write(tmp_path)
    assert read(tmp_path) == Record("b", 2.0) and [file.name for file in tmp_path.iterdir()] == [RECORD]
