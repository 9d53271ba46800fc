"""Options that the pages name are there, and docs/configure.md names all of them."""

from __future__ import annotations

import re

import pytest

from hybridflow.config.compose import configs_dir
from tests.docs.blocks import ROOT, blocks

OPTIONS = {
    group.name: {path.stem for path in group.glob("*.yaml")} for group in configs_dir().iterdir() if group.is_dir()
}
CHOSEN = re.compile(rf"(?<![\w.])({'|'.join(OPTIONS)})=([a-z]\w+)(?![\w/]|\.ya?ml)")
NAMED_IN_TEXT = {"mine", "chains", "found"}  # files of a user's that a page does not show, or shows without a title
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def test_the_table_has_every_option() -> None:
    table = (ROOT / "docs/configure.md").read_text(encoding="utf-8")
    for group, options in OPTIONS.items():
        [row] = re.findall(rf"^\| [^|]*`{group}`[^|]*\|.*$", table, re.MULTILINE)
        assert "algorithms.md" in row or set(re.findall(r"`(\w+)`", row.partition("|")[2])) >= options, group


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_chooses_are_there(page: str) -> None:
    own = {
        block.title.rpartition("/")[2].removesuffix(".yaml") for name in PAGES for block in blocks(name)
    } | NAMED_IN_TEXT
    chosen = CHOSEN.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [f"{group}={name}" for group, name in chosen if name not in OPTIONS[group] | own] == []
