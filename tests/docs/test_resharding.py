"""docs/resharding.md: its program prints what it says."""

from __future__ import annotations

import contextlib
import io

from tests.docs.blocks import blocks

PAGE = "docs/resharding.md"


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
