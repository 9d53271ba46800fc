"""docs/metrics.md names what is measured, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hybridflow

DOC = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
SOURCES = [file for file in Path(hybridflow.__file__).parent.rglob("*.py") if "conformance" not in file.parts]
RECORDED = re.compile(r"metrics\.(?:mean|max|min|total|explain)\(\s*f?\"([^\"]+)\"")


def recorded() -> set[str]:
    """Names that the package records, a role in one of them as `ROLE`."""
    names = {name for file in SOURCES for name in RECORDED.findall(file.read_text(encoding="utf-8"))}
    return {re.sub(r"\{(self\.context\.)?role\}", "ROLE", name) for name in names}


@pytest.mark.parametrize("name", sorted(name for name in recorded() if "{" not in name))
def test_what_is_recorded_is_told(name: str) -> None:
    group, _, last = name.partition("/")
    told = {name, f"{group}/…", f"…/{last}", f"ROLE/{last}", *([f"critic/{last}"] if group == "ROLE" else [])}
    assert any(f"`{one}`" in DOC for one in told), f"{name} is in no table of docs/metrics.md"


def test_there_are_names_to_look_for() -> None:
    assert {"actor/entropy", "ROLE/grad_norm", "perf/response_tokens"} <= recorded()
