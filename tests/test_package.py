"""What is shipped: the wheel has the configurations, and installs a command."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_contains_the_configurations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    ours = {f"hybridflow/{path.relative_to(ROOT)}" for path in (ROOT / "trainer_configs").rglob("*.yaml")}
    assert ours and ours <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "trainer_configs/"))]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).read(entry).decode()
    assert "hybridflow = hybridflow.cli:main" in text
