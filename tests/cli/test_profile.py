"""`hybridflow profile`: what is refused before anything is measured, and a whole measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.cli import main
from hybridflow.planning.hardware_files import read_hardware


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("there.yaml", "there.yaml is there already; give another name, or --force to replace it"),
        ("machine.txt", "a hardware file's name ends in .yaml"),
        ("no/such/machine.yaml", "does not exist"),
    ],
)
def test_a_file_that_cannot_be_written(
    out: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").touch()
    assert main(["profile", "--out", out]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ranks
def test_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "here.yaml"
    assert main(["profile", "--out", str(file)]) == 0
    hardware = read_hardware(file)
    assert hardware.cores > 0
    assert hardware.overheads.engine_row + hardware.overheads.engine_layer > 0
    assert min(hardware.flops.values()) > 1e8
    assert f"wrote {file}" in capsys.readouterr().out
