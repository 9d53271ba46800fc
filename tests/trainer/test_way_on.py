"""How a run ends that a signal stops, or that loses its cluster: by what is saved, and the command that goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from hybridflow import preflight
from hybridflow.errors import ClusterError, Stopped
from hybridflow.observe.run_folder import RunFolder
from hybridflow.trainer.run import _way_on

LOST = "ray: the cluster's head at 10.0.0.4:6379 has not answered for 50 s"


def ended(folder: RunFolder, error: BaseException) -> BaseException:
    """What a run of that folder, which had gone on from a checkpoint of its own, ends with."""
    config = preflight.load("train", ("experiment=addition",))
    with pytest.raises(type(error)) as raised, _way_on(config, folder, goes_on=True):
        raise error
    return raised.value


@pytest.mark.parametrize("error", [ClusterError(LOST), Stopped(signal.SIGTERM)])
def test_it_tells_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "/venv/bin/hybridflow", "train", "experiment=addition"])
    folder = RunFolder(tmp_path)
    assert str(ended(folder, error)) == f"{error}: nothing had been saved"
    (folder.checkpoints / "step-000003").mkdir(parents=True)
    (folder.checkpoints / "step-000003" / "manifest.json").write_text("{}")
    command = "hybridflow train experiment=addition"
    assert str(ended(folder, error)).startswith(f"{error}: 3 steps saved, and this goes on from there: {command}")
