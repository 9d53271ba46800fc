"""A store that is nearly full is told once, with the setting that makes it larger."""

from __future__ import annotations

import pytest

from hybridflow.controller import object_store
from hybridflow.controller.object_store import StoreWatch


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "LOOK_EVERY_S", 0.0)
    said: list[str] = []
    free = iter([50.0, 9.0, 8.0])
    watch = StoreWatch(said.append, lambda: (next(free) * 2**30, 100.0 * 2**30))
    for _ in range(3):
        watch.look()
    (line,) = said
    assert line.startswith("warning: 9.00 of the 100.00 GiB of the object store") and "ray.object_store_gib" in line


def test_the_cluster_is_not_asked_at_each_step() -> None:
    asked: list[int] = []
    watch = StoreWatch(pytest.fail, lambda: (asked.append(1) or 1.0, 1.0))
    for _ in range(3):
        watch.look()
    assert len(asked) == 1
