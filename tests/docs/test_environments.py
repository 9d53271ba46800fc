"""docs/environments.md: its environment works, and its tables have all settings and columns."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from hybridflow.config.schema import EnvironmentConfig
from hybridflow.environments import Action, Question, environments
from hybridflow.environments.environment import make, sound_observation
from hybridflow.roles.builtin_roles import CONVERSED
from tests.docs.blocks import ROOT, write_files

PAGE = "docs/environments.md"


def test_its_environment_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_files(PAGE, tmp_path) == ["my_environments.py", "my_tools.py"]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "guess" in set(environments), "before others are registered in their place"
    monkeypatch.setattr(environments, "_components", environments.registered)
    import_module("my_environments")
    chain = make("chain", {"words": 2})

    async def play() -> list[tuple[float, bool]]:
        await chain.reset(Question("", "tea"))
        seen = [sound_observation(chain, await chain.step(Action(word))) for word in ("apple", "egg")]
        return [(one.reward, one.done) for one in seen]

    assert asyncio.run(play()) == [(1.0, False), (1.0, True)]


def test_its_tables_have_all_settings_and_columns() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert [one.name for one in fields(EnvironmentConfig) if f"`{one.name}`" not in rows] == []
    assert [name for name in CONVERSED if f"`{name}`" not in rows] == []
