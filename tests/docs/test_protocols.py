"""docs/protocols.md: its files, run as it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks, write_files
from tests.docs.conftest import Run

pytestmark = pytest.mark.processes

PAGE = "docs/protocols.md"


@pytest.mark.ranks
def test_the_page_runs(tmp_path: Path, run: Run) -> None:
    assert write_files(PAGE, tmp_path) == ["my_roles.py", "test_my_roles.py", "score.py"]
    assert "12 passed" in run("python", "-m", "pytest", "-q", "test_my_roles.py").stdout
    shown = next(block.text for block in blocks(PAGE) if block.title == "output")
    assert run("python", "score.py").stdout == shown


def test_what_it_says_of_declarations_stands_in_its_file() -> None:
    """The line under "What a method declares" is that of the example."""
    line = next(block.text for block in blocks(PAGE) if block.text.startswith("@dispatch.using"))
    example = next(block.text for block in blocks(PAGE) if block.title == "my_roles.py")
    assert f"    {line}" in example


def test_the_picture_is_what_its_script_draws() -> None:
    script = ROOT / "docs/images/dispatch.py"
    drawn = runpy.run_path(str(script))["picture"]()
    assert drawn == script.with_suffix(".svg").read_text(), f"it is out of date: python {script}"
