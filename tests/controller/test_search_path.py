"""Where processes of the cluster, and what they start, look for modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.controller import search_path

pytestmark = pytest.mark.processes

RANK = "import subprocess, sys; begin(); subprocess.run([sys.executable, '-m', 'calendar', '2000', '1'], check=True)"


@pytest.mark.parametrize("name", ["types", "json", "calendar"])
def test_what_a_process_starts_does_not_search_the_drivers_folder_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('a module beside the experiment')")
    root = str(Path(search_path.__file__).parents[2])
    begin = (
        f"import sys; sys.path.append({root!r}); from hybridflow.controller.search_path import begin_process as begin"
    )
    monkeypatch.setenv(search_path.FOLDERS, str(tmp_path))
    monkeypatch.setenv(search_path.HERE, str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", f"{begin}\n{RANK}"], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0 and "January 2000" in ended.stdout, ended.stderr


def test_folders_that_hide_the_library_are_left_out_where_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("module", "package/json", "namespace/json", "fine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "module/random.py").touch()
    (tmp_path / "package/json/__init__.py").touch()
    (tmp_path / "fine/mine.py").touch()
    folders = [str(tmp_path / name) for name in ("module", "package", "namespace", "fine", "nowhere")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    with search_path.standard_first():
        assert os.environ["PYTHONPATH"] == os.pathsep.join(folders[2:])
    assert os.environ["PYTHONPATH"] == os.pathsep.join(folders)
