"""docs/graders.md: its graders are of all kinds, and meet what `hybridflow check` expects."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from hybridflow.conformance.expectations import violations
from hybridflow.conformance.task_checks import try_grader
from hybridflow.tasks import graders
from hybridflow.tasks.grader_registry import bind
from tests.docs.blocks import ROOT, write_files

PAGE = "docs/graders.md"


def test_its_graders_meet_all_expectations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_files(PAGE, tmp_path) == ["my_graders.py"]
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


def test_its_table_has_our_graders() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    ours = [name for name in graders if graders.get(name).__module__.startswith("hybridflow.tasks.")]
    assert [name for name in ours if f"| `{name}` |" not in page and name != "has_seven"] == []
