"""A placement in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.config import compose
from hybridflow.errors import ConfigError

FOUND = "placement:\n  pools: {both: 4}\n  roles: {actor: both}\nactor:\n  parallel: {tensor: 4}\n"


def composed(*overrides: str, folder: Path | None = None) -> tuple[dict[str, int], int]:
    config = compose.compose("train", ["experiment=addition", *overrides], folder).to_config()
    return config.placement.pools, config.actor.parallel.tensor


def test_it_wins_over_the_experiment_and_the_command_line_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "found.yaml").write_text(FOUND)
    assert composed() == ({"main": 2}, 2)
    for name in ("runs/found.yaml", f"{tmp_path}/runs/found.yaml", "./runs/../runs/found.yaml"):
        assert composed(f"placement={name}") == ({"both": 4}, 4)
    assert composed("actor.parallel.tensor=1", "placement=runs/found.yaml") == ({"both": 4}, 1)


def test_it_is_read_again_once_it_was_edited(tmp_path: Path) -> None:
    file = tmp_path / "found.yaml"
    for tensor in (4, 2):
        file.write_text(FOUND.replace("tensor: 4", f"tensor: {tensor}") + "\n" * tensor)
        assert composed(f"placement={file}") == ({"both": 4}, tensor)


def test_so_does_an_option_that_sets_keys_of_all_sections(tmp_path: Path) -> None:
    (tmp_path / "placement").mkdir()
    (tmp_path / "placement" / "found.yaml").write_text(f"# @package _global_\n{FOUND}")
    assert composed("placement=found", folder=tmp_path) == ({"both": 4}, 4)


def test_a_sweep_takes_files_and_options() -> None:
    assert compose.sweep_jobs(["experiment=addition", "placement=split,a/found.yaml"]) == [
        ["experiment=addition", "placement=split"],
        ["experiment=addition", "placement=a/found.yaml"],
    ]


def test_what_is_wrong_with_it_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"placement=none\.yaml: there is no such file"):
        composed("placement=none.yaml")
    file = tmp_path / "found.yaml"
    file.write_text("placement:\n  pools: {both: 4}\nactor:\n  paralel: {tensor: 4}\n")
    with pytest.raises(ConfigError, match=r"paralel.*parallel.*found\.yaml:4"):
        composed(f"placement={file}")
    file.write_text("actor: [\n")
    with pytest.raises(ConfigError, match=r"found\.yaml:2: not readable as YAML"):
        composed(f"placement={file}")
