"""docs/rlhf.md: its commands and its file of stages pass all checks, its error is ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hybridflow.cli import main, rlhf
from hybridflow.cli.stages import read
from tests.docs.blocks import ROOT, commands, write_files

PAGE = "docs/rlhf.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Path]) -> Path:
    """A working directory with the models that the page makes."""
    (tmp_path / "models").mkdir()
    for name in ("addition", "addition_4_layers"):
        (tmp_path / "models" / name).symlink_to(tiny(layers=2, hidden=64, heads=2, kv_heads=2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands(PAGE, "hybridflow rlhf"), ids=" ".join)
def test_its_commands_pass_every_check(command: list[str], place: Path) -> None:
    assert write_files(PAGE, place) == ["my_configs/safe.yaml"]
    options = rlhf._parser().parse_intermixed_args(command[2:])
    jobs = rlhf.checked(read(options.config_name, options.overrides, options.config_dir), options.config_dir)
    assert len(jobs) == (3 if options.config_name == "safe" else 4)


def test_its_error_is_ours(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rlhf", "train.reward.grader=exat"]) == 2
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert capsys.readouterr().err.strip().partition(" Known: ")[0] in text
