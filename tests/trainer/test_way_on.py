"""How a run ends that a signal stops, or that loses its cluster: by what is saved, and the command that goes on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from hybridflow import interrupt, preflight
from hybridflow.config import Config
from hybridflow.errors import ClusterError, Stopped
from hybridflow.preflight.run_folder_checks import folder_of
from hybridflow.trainer import way_on

LOST = "ray: the cluster's head at 10.0.0.4:6379 has not answered for 50 s"


def ended(config: Config, error: BaseException) -> BaseException:
    """What a run ends with, also before anything of it is imported."""
    with pytest.raises(type(error)) as raised, way_on.told(config):
        raise error
    return raised.value


def run_of(root: Path, *more: str) -> Config:
    return preflight.load("train", ("experiment=addition", f"run.root={root}", *more))


def save(config: Config, step: int) -> None:
    folder = Path(folder_of(config)) / f"checkpoints/step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize("error", [ClusterError(LOST), Stopped(signal.SIGTERM)])
def test_it_tells_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "/venv/bin/hybridflow", "train", "experiment=addition"])
    config = run_of(tmp_path)
    assert str(ended(config, error)) == f"{error}: nothing had been saved"
    save(config, 3)
    command = "hybridflow train experiment=addition"
    assert str(ended(config, error)).startswith(f"{error}: 3 steps saved, and this goes on from there: {command}")


@pytest.mark.parametrize(
    ("resume", "status"),
    [("auto", 75), ("never", 1), ("addition", 75), ("addition/checkpoints/step-000003", 75), ("other", 1)],
)
def test_before_a_start_what_it_would_go_on_from_is_saved(tmp_path: Path, resume: str, status: int) -> None:
    save(run_of(tmp_path), 3)
    wanted = resume if resume in ("auto", "never") else f"{tmp_path}/{resume}"
    stopped = ended(run_of(tmp_path, f"trainer.resume={wanted}"), Stopped(signal.SIGTERM))
    assert isinstance(stopped, Stopped) and stopped.exit_code == status


@pytest.mark.usefixtures("fresh_signals")
def test_what_ray_makes_of_a_signal_as_ranks_start_is_told_too(tmp_path: Path) -> None:
    save(run_of(tmp_path), 3)
    with pytest.raises(Stopped) as stopped, interrupt.heeded(), way_on.told(run_of(tmp_path)):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            interrupt.check()
        except Stopped:
            raise KeyboardInterrupt from None  # as `ray.get` does
    assert stopped.value.exit_code == 75
