"""What is shipped: the wheel has the configurations and the page of reports, and installs a command."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_tests_for_gpus_say_so() -> None:
    command = ["make", "--no-print-directory", "test-gpu", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines()[0].startswith("error: torch sees no GPU here, so nothing was run")


def test_the_wheel_contains_what_is_read_from_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    ours = {f"hybridflow/{path.relative_to(ROOT)}" for path in (ROOT / "trainer_configs").rglob("*.yaml")}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "hybridflow/observe/report/assets").iterdir()}
    assert len(ours) > 10 and len(page) > 5 and ours | page <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "trainer_configs/"))]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).read(entry).decode()
    assert "hybridflow = hybridflow.cli:main" in text
