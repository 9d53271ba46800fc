"""vLLM that is compiled (`rollout.enforce_eager=false`), beside our steps, draws and products."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.parallel.platform import platform
from tests.conftest import GetModel
from tests.engines.vllm import compiled_rank_functions as rank_functions

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.slow,
    pytest.mark.skipif(platform().name != "cpu", reason="two engines in a process are for a CPU"),
]


def test_it_samples_what_an_engine_that_is_not_compiled_does(tiny: GetModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny(vocab=70, layers=2), tmp_path / "model"))
    own = {"VLLM_CACHE_ROOT": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", rank_functions.__name__, str(folder)],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("apart") < 1e-5
    assert found == {"repeats": True, "heeds weights": True, "tokens": True}
