"""requirements/cpu_torch.py: torch is taken from where its CPU build is, by pip itself, from indexes on this disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pip
import pytest

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).parents[1] / "requirements" / "cpu_torch.py"
PYPI = {"2.13.0": ("cuda-toolkit==13.0.3", "triton==3.7.1"), "2.14.0": ("triton",)}


def wheel(folder: Path, version: str, requires: tuple[str, ...] = ()) -> Path:
    """A torch with nothing in it but what it says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    file, info = folder / f"torch-{version}-py3-none-any.whl", f"torch-{version}.dist-info"
    said = ["Metadata-Version: 2.1", "Name: torch", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    with ZipFile(file, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join([*said, ""]))
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


def index(root: Path, builds: dict[str, tuple[str, ...]], *, broken: tuple[str, ...] = ()) -> str:
    """A package index with these builds of torch, and their metadata apart as on PyPI; its URL."""
    folder, links = root / "torch", []
    for version, requires in builds.items():
        file = wheel(folder, version, requires)
        with ZipFile(file) as archive:
            said = archive.read(f"torch-{version}.dist-info/METADATA")
        file.with_name(f"{file.name}.metadata").write_bytes(said)
        digest = hashlib.sha256(said).hexdigest()
        links.append(f'<a href="{file.name}" data-core-metadata="sha256={digest}">{file.name}</a>')
        if version in broken:  # whoever fetches it gets what is no wheel
            file.write_bytes(b"fetched")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    return root.as_uri()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing in it but our pip: to install another takes seconds."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "pip").symlink_to(Path(pip.__file__).parent)
    return folder / "bin" / "python"


class Machine:
    """An environment without torch, and pip configured with nothing but what a test says."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.lock = python, folder / "cpu.lock"
        self.lock.write_text("filelock==3.0\ntorch==2.13.0\ntorchdata==1.0\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        self.environment = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(folder / "cache")}

    def setup(self, pytorch: str = "file:///nowhere", **pip: str) -> subprocess.CompletedProcess[str]:
        return self._run([str(SCRIPT), str(self.lock), "--index", pytorch], **pip)

    def torch(self) -> str | None:
        found = [folder.name.removesuffix(".dist-info") for folder in self._torches()]
        return found[0].removeprefix("torch-") if found else None

    def remove(self) -> None:
        for folder in self._torches():
            shutil.rmtree(folder)

    def _torches(self) -> list[Path]:
        return list(self.python.parents[1].glob("lib/python*/site-packages/torch-*.dist-info"))

    def _run(self, arguments: list[str], **pip: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **{f"PIP_{name.upper()}": value for name, value in pip.items()}}
        return subprocess.run(
            [self.python, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture
def machine(fresh: Path, tmp_path: Path) -> Machine:
    found = Machine(fresh, tmp_path)
    found.remove()
    return found


def test_the_configured_index_has_it(machine: Machine, tmp_path: Path) -> None:
    own = index(tmp_path / "own", {**PYPI, "2.13.0+cpu": ()}, broken=("2.13.0",))
    done = machine.setup(index_url=own)
    assert (done.returncode, machine.torch()) == (0, "2.13.0+cpu"), done.stderr
    assert done.stdout == "setup: torch from what pip is configured with: 2.13.0+cpu\n"


def test_configured_find_links_have_it(machine: Machine, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "2.13.0+cpu")
    pypi = index(tmp_path / "pypi", PYPI, broken=("2.13.0",))
    done = machine.setup(index_url=pypi, find_links=str(tmp_path / "wheels"))
    assert (done.returncode, machine.torch()) == (0, "2.13.0+cpu"), done.stderr


def test_else_pytorchs_own_index_and_no_build_for_gpus_is_fetched(machine: Machine, tmp_path: Path) -> None:
    pypi = index(tmp_path / "pypi", PYPI, broken=("2.13.0",))
    pytorch = index(tmp_path / "pytorch", {"2.13.0+cpu": (), "2.14.0+cpu": ()})
    done = machine.setup(pytorch, index_url=pypi)
    assert (done.returncode, machine.torch()) == (0, "2.13.0+cpu"), done.stderr
    assert done.stdout == f"setup: torch from {pytorch}: 2.13.0+cpu\n"


def test_an_offline_mirror_that_calls_its_cpu_build_2_13_0(machine: Machine, tmp_path: Path) -> None:
    mirror = index(tmp_path / "mirror", {"2.13.0": ("filelock",)})
    done = machine.setup(index_url=mirror)
    assert (done.returncode, machine.torch()) == (0, "2.13.0"), done.stderr
    assert done.stdout == "setup: torch from what pip is configured with: 2.13.0, a CPU build\n"


@pytest.mark.parametrize("build", ["2.13.0", "2.13.0+cpu"])
def test_a_folder_and_no_index_at_all(machine: Machine, tmp_path: Path, build: str) -> None:
    wheel(tmp_path / "wheels", build, ("sympy",))
    done = machine.setup(no_index="1", find_links=str(tmp_path / "wheels"))
    assert (done.returncode, machine.torch()) == (0, build), done.stderr


def test_a_build_for_gpus_is_refused_before_it_is_fetched(machine: Machine, tmp_path: Path) -> None:
    pypi = index(tmp_path / "pypi", PYPI, broken=("2.13.0",))
    done = machine.setup(index_url=pypi)
    assert (done.returncode, done.stdout, machine.torch()) == (1, "", None)
    assert done.stderr.startswith("error: file:///nowhere cannot be reached or has no torch 2.13.0+cpu, and the torch")
    assert "is a build for GPUs" in done.stderr and "TORCH_INDEX=URL" in done.stderr


def test_a_version_that_is_nowhere(machine: Machine, tmp_path: Path) -> None:
    done = machine.setup(index_url=index(tmp_path / "old", {"2.12.0": ()}))
    assert (done.returncode, machine.torch()) == (1, None)
    assert "neither what pip is configured with nor file:///nowhere has torch 2.13.0" in done.stderr


def test_what_is_there_stays_and_a_build_for_gpus_goes(machine: Machine, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "2.13.0", ("triton",))
    machine._run(
        ["-m", "pip", "install", "-q", "--no-deps", "torch"], no_index="1", find_links=str(tmp_path / "wheels")
    )
    assert machine.torch() == "2.13.0"
    pytorch = index(tmp_path / "pytorch", {"2.13.0+cpu": ()})
    assert machine.setup(pytorch, index_url=index(tmp_path / "pypi", PYPI)).returncode == 0
    assert machine.torch() == "2.13.0+cpu"
    again = machine.setup(no_index="1")
    assert (again.returncode, again.stdout) == (0, "")


def test_a_lock_without_torch_or_with_a_build_named_in_it_is_left_to_pip(machine: Machine) -> None:
    for text in ("numpy==2.0\ntorchvision==0.2\n", "torch==2.13.0+cu130\n"):
        machine.lock.write_text(text)
        done = machine.setup(no_index="1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
