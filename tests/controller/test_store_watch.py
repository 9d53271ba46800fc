"""A store that is nearly full is told once, with the setting that makes it larger."""

from __future__ import annotations

import pytest

from hybridflow.controller import object_store
from hybridflow.controller.object_store import StoreState, StoreWatch


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "LOOK_EVERY_S", 0.0)
    said: list[str] = []
    free = iter([50.0, 9.0, 8.0])
    watch = StoreWatch(said.append, lambda: StoreState(next(free) * 2**30, 100.0 * 2**30))
    for _ in range(3):
        watch.look()
    (line,) = said
    assert line.startswith("warning: 9.00 of the 100.00 GiB of the object store") and "ray.object_store_gib" in line


def test_the_cluster_is_not_asked_at_each_step() -> None:
    asked: list[int] = []
    watch = StoreWatch(pytest.fail, lambda: StoreState(asked.append(1) or 1.0, 1.0))
    for _ in range(3):
        watch.look()
    assert len(asked) == 1


def test_rows_that_were_on_the_disk_are_told_though_they_are_gone_between_steps() -> None:
    said: list[str] = []
    StoreWatch(said.append, lambda: StoreState(100.0 * 2**30, 100.0 * 2**30, 3.0 * 2**30)).look()
    (line,) = said
    assert "3.00 GiB of rows that did not fit went to the disk" in line


def test_a_cluster_that_does_not_answer_is_not_told_of() -> None:
    StoreWatch(pytest.fail, lambda: None).look()
