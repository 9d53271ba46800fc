"""docs/faq.md: what it quotes is in the source, and every error that is meant for a user is on it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.blocks import ROOT
from tests.docs.messages import raised, template, texts, trees

OURS, _, LIBRARIES = (ROOT / "docs/faq.md").read_text(encoding="utf-8").partition("## Messages of libraries")
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
ERRORS = {"HybridFlowError", "ClusterError", "CheckpointError", "DiskError", "ServerError", "FlowError"}
BEFORE_A_START = {"ConfigError", "DataError", "NameTakenError", "RowError"}
SETTING = re.compile(r"[a-z_]+\.[a-z_.…]+:")  # a message that begins so says itself what it is about
QUOTES = [quote for quote, _ in ROW.findall(OURS)]


OF_ANY_SETTING = re.compile(r"(…(=…)?: (?!…)|no … is named)")  # its key, or the part, is filled in


def begins_with(text: str, quote: str) -> bool:
    return text.startswith(quote.rstrip("…").rstrip())


def test_every_row_of_its_tables_is_read() -> None:
    lines = [line for line in (OURS + LIBRARIES).splitlines() if line.startswith("| `")]
    assert len(lines) == len(QUOTES) + len(ROW.findall(LIBRARIES)) > 100
    assert len({*QUOTES}) == len(QUOTES)


@pytest.mark.parametrize("quote", QUOTES)
def test_what_it_quotes_is_in_the_source(quote: str) -> None:
    assert any(begins_with(text, quote) for text in texts()), quote


def test_every_error_for_a_user_is_on_it() -> None:
    of_files = {place: text for place, text in raised(BEFORE_A_START) if not SETTING.match(text)}
    found = dict(raised(ERRORS)) | of_files
    assert len(found) > 150
    lacking = {place: text for place, text in found.items() if not any(begins_with(text, quote) for quote in QUOTES)}
    assert not lacking


def test_what_is_said_of_any_setting_is_on_it() -> None:
    """Such words are put together and raised elsewhere; a row that begins with a key alone would stand for all."""
    found = {
        f"{path}:{node.lineno}": " ".join(template(node).split())
        for path, tree in trees().items()
        if path.startswith(("hybridflow/config/", "hybridflow/registry.py"))
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
    }
    found = {place: text for place, text in found.items() if OF_ANY_SETTING.match(text)}
    assert len(found) > 15
    telling = [quote for quote in QUOTES if re.search(r"\w{2}", quote)]
    lacking = {place: text for place, text in found.items() if not any(begins_with(text, quote) for quote in telling)}
    assert not lacking
