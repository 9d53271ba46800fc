"""docs/resharding.md: its program prints what it says, and its picture is of the plan."""

from __future__ import annotations

import contextlib
import io
import runpy

from tests.docs.blocks import ROOT, blocks

PAGE = "docs/resharding.md"
SCRIPT = ROOT / "docs/images/resharding.py"


def test_the_page_runs() -> None:
    """All but the digest, which is of every field."""
    [program] = [block.text for block in blocks(PAGE) if block.language == "python"]
    [shown] = [block.text for block in blocks(PAGE) if block.title == "output"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("  sha256")]

    assert lines(printed.getvalue()) == lines(shown)


def test_the_picture_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(SCRIPT))["picture"]()
    assert drawn == SCRIPT.with_suffix(".svg").read_text(), f"it is out of date: python {SCRIPT}"
