"""Names of earlier versions: to use one is an error that says the new one."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.algorithms import Algorithm
from hybridflow.algorithms.missing_attributes import RENAMED, RenamedError
from hybridflow.errors import HybridFlowError
from hybridflow.preflight import load
from hybridflow.registry import import_plugins


def test_the_old_names_are_those_of_the_version_that_had_them() -> None:
    assert set(RENAMED) == {"number", "measured", "draw", "filtered", "parts", "penal" + "ises_kl"}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_declaring_an_old_name_is_told(old: str, new: str) -> None:
    with pytest.raises(HybridFlowError, match=rf"Mine: {old} is called {new} now; rename it in "):
        type("Mine", (Algorithm,), {old: None})


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_using_an_old_name_is_told(old: str, new: str) -> None:
    made: Any = Algorithm(load("train", ["experiment=addition"]).algorithm, {})
    with pytest.raises(RenamedError, match=f"{old} is called {new} now"):
        getattr(made, old)
    with pytest.raises(RenamedError, match=f"{old} is called {new} now"):
        setattr(made, old, 3)
    assert not hasattr(made, old) and hasattr(type(made), new)


def test_a_plugin_that_declares_one_is_told_with_its_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outdated.py").write_text(
        "from hybridflow.algorithms import Algorithm\n\n\n"
        "class Mine(Algorithm):\n    def measured(self, metrics):\n        return {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"Mine: measured is called on_step_end now.*outdated\.py:4"):
        import_plugins(["outdated"])
