"""Fenced blocks of a response in Markdown: what stands between two lines of backticks or tildes."""

from __future__ import annotations

import re

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)


def last_fenced_block(text: str) -> str | None:
    """Return what the last closed fenced block has between its fences; None if there is none.

    As CommonMark has it: a block ends at a fence of the same character, at least as long, with nothing after it.
    """
    opened: re.Match[str] | None = None
    block = None
    for fence in FENCE.finditer(text):
        marks, info = fence.groups()
        if opened is None:
            opened = fence if "`" not in info or marks[0] == "~" else None
        elif marks[0] == opened[1][0] and len(marks) >= len(opened[1]) and not info.strip():
            block = text[opened.end() + 1 : fence.start()]
            opened = None
    return block
