"""docs/graders.md: its graders are of all kinds, and meet what `hybridflow check` expects."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from hybridflow.conformance.expectations import violations
from hybridflow.conformance.task_checks import any_text_tokenizer, try_grader
from hybridflow.options import taken_by
from hybridflow.tasks import build, graders
from hybridflow.tasks.code_grader import row_tests
from hybridflow.tasks.grader_registry import bind, options_shell
from tests.docs.blocks import ROOT, write_files

PAGE = "docs/graders.md"


def test_its_graders_meet_all_expectations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "my_graders.py" in write_files(PAGE, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(graders)
    monkeypatch.setattr(graders, "_components", graders.registered)
    import_module("my_graders")
    added = sorted(set(graders) - before)
    assert added == ["asks", "many", "pattern", "short", "shown_work", "starts_right"]
    kinds = {name: bind(name) for name in added}
    assert (
        {grader.batched for grader in kinds.values()}
        == {grader.concurrent for grader in kinds.values()}
        == {True, False}
    )
    for name in added:
        own = {"batched": graders.is_batched(name), "token_rewards": graders.gives_token_rewards(name)}
        assert violations(lambda name=name, own=own: try_grader(graders.get(name), **own)) == [], name  # type: ignore[misc]


def test_its_rows_of_programs_have_tests(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    task = build("rows", any_text_tokenizer(), {"path": str(tmp_path / "programs.jsonl")})
    rows = [task.example(split, 0).metadata for split in ("train", "held_out")]
    assert sorted(len(row_tests(row, "tests")) for row in rows) == [1, 2]


def test_its_table_has_our_graders_and_their_options() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    ours = [name for name in graders if graders.get(name).__module__.startswith("hybridflow.tasks.")]
    assert [name for name in ours if name not in rows and name != "has_seven"] == []
    options = {name: taken_by(options_shell(graders.get(name))) for name in ours}
    assert [(name, option) for name in ours for option in options[name] if f"`{option}`" not in rows[name]] == []
