"""docs/data-plane.md: its programs print what it says."""

from __future__ import annotations

from pathlib import Path

from tests.docs.blocks import blocks, write_files
from tests.docs.conftest import Run

PAGE = "docs/data-plane.md"


def test_the_page_runs(tmp_path: Path, run: Run) -> None:
    files = write_files(PAGE, tmp_path)
    shown = [block.text for block in blocks(PAGE) if block.title == "output"]
    assert [run("python", name).stdout for name in files] == shown and len(shown) == 2
