"""The code of a documentation page: its fenced blocks, and the files that they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_INSIDE = re.compile(r"# (\S+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        title: the file that it is: its fence says `title="…"`, or its first line is `# name.py`; else "".
    """

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of a page, by its path from the repository's root, in order."""
    found = []
    for language, title, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        inside = NAMED_INSIDE.match(text)
        found.append(Block(language, title or (inside[1] if inside else ""), text))
    return found


def write_files(page: str, folder: Path) -> list[str]:
    """Write the blocks that are files; their names."""
    named = [block for block in blocks(page) if block.title and block.language != "text"]
    for block in named:
        path = folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    return [block.title for block in named]


def commands(page: str, start: str) -> list[list[str]]:
    """The shell lines of a page that begin so, as arguments; comments are left out."""
    lines = [line for block in blocks(page) if block.language in ("bash", "sh") for line in block.text.splitlines()]
    return [line.partition(" #")[0].split() for line in lines if line.startswith(start)]
