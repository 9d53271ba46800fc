"""Files beside the tensors of a saved engine are told of before a rank reads them, if they are not what it writes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hybridflow.engines.megatron import saved_files
from hybridflow.errors import HybridFlowError

STATE: dict[str, Any] = {"optimizer_steps": 3, "schedule_steps": 3, "extra": {"kl": 0.1}, "ranks": 2}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What two ranks save."""
    (tmp_path / "tensors").mkdir()
    torch.save({}, tmp_path / saved_files.COMMON)
    (tmp_path / saved_files.STATE).write_text(json.dumps(STATE))
    for rank in range(2):
        save_file({name: np.zeros(1) for name in saved_files.RANDOM}, saved_files.random_file(tmp_path, rank))
    return tmp_path


def test_what_was_saved_passes(saved: Path) -> None:
    saved_files.check(saved)
    assert saved_files.read_state(saved).extra == {"kl": 0.1}


@pytest.mark.parametrize(
    "state",
    [
        *([], None, {}, {**STATE, "extra": []}, {**STATE, "ranks": 0}, {**STATE, "optimizer_steps": -1}),
        *({**STATE, "schedule_steps": 10**30}, {**STATE, "optimizer_steps": True}, {**STATE, "ranks": float("nan")}),
    ],
)
def test_a_state_of_other_values_is_one_error(saved: Path, state: object) -> None:
    (saved / saved_files.STATE).write_text(json.dumps(state))
    with pytest.raises(HybridFlowError, match=r"state\.json.* expected"):
        saved_files.check(saved)


def cut(file: Path) -> None:
    """Leave its first bytes."""
    file.write_bytes(file.read_bytes()[:20])


def of_other_names(file: Path) -> None:
    """Write tensors of other names."""
    save_file({"a": np.zeros(1)}, file)


def with_a_program(file: Path) -> None:
    """Write what runs a program when it is unpickled."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("common/data.pkl", b"cos\nsystem\n(S'false'\ntR.")


def with_tensors(file: Path) -> None:
    """Write what torch would load."""
    torch.save({"a": torch.zeros(1)}, file)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("rng-00001.safetensors", Path.unlink, "no such file"),
        ("rng-00001.safetensors", cut, "not whole"),
        ("rng-00000.safetensors", of_other_names, "has no numpy"),
        ("tensors/common.pt", Path.unlink, "No such file"),
        ("tensors/common.pt", cut, "is not what hybridflow wrote"),
        ("tensors/common.pt", of_other_names, "is not what hybridflow wrote"),
        ("tensors/common.pt", with_a_program, "has something in it"),
        ("tensors/common.pt", with_tensors, "has something in it"),
        ("state.json", Path.unlink, "No such file"),
    ],
)
def test_a_file_that_is_not_there_or_not_whole_is_named(
    saved: Path, name: str, change: Callable[[Path], object], told: str
) -> None:
    change(saved / name)
    with pytest.raises(HybridFlowError, match=f"{name}.*{told}"):
        saved_files.check(saved)
