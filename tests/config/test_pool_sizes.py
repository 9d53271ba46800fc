"""Sizes of pools: a number, nodes and slots, or what is left; and everything else is told with its key."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.config import compose, pool_sizes, resume_diff
from hybridflow.config.pool_sizes import PoolSize, size_of
from hybridflow.errors import ConfigError


def pools(*overrides: str) -> dict[str, Any]:
    return compose.compose("train", ["experiment=addition", *overrides]).to_config().placement.pools


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        (("placement.pools.main=4",), PoolSize(4)),
        (("placement.pools.main=auto",), PoolSize(None)),
        (("placement.pools.main={nodes: 2, slots: 4}",), PoolSize(8, 2)),
        (("placement.pools={main: {nodes: 2, slots: 4}}",), PoolSize(8, 2)),
        (("placement.pools.main.nodes=3", "placement.pools.main.slots=1"), PoolSize(3, 3)),
        (("placement.pools.main.nodes=${oc.env:NODES}", "placement.pools.main.slots=8"), PoolSize(16, 2)),
        (("placement.pools.main=${oc.env:NODES}",), PoolSize(2)),
    ],
)
def test_a_size_is_given_on_the_command_line(
    overrides: tuple[str, ...], size: PoolSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODES", "2")
    given = pools(*overrides)
    assert list(pool_sizes.problems(given)) == [] and size_of(given["main"]) == size


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (0, "placement.pools.main: 0 given, at least 1 and at most 65536 expected"),
        ("two", "placement.pools.main: 'two' given; a number of slots, {nodes: N, slots: M} or auto was expected"),
        (2.5, "placement.pools.main: 2.5 given; a number of slots"),
        (True, "placement.pools.main: True given; a number of slots"),
        (None, "placement.pools.main: None given; a number of slots"),
        ([2], "placement.pools.main: [2] given; a number of slots"),
        ({"nodes": 2}, "placement.pools.main: slots is missing; write {nodes: N, slots: M}"),
        ({"node": 2, "slots": 1}, "placement.pools.main.node: no such key; did you mean placement.pools.main.nodes?"),
        ({"a": 2, "slots": 1}, "placement.pools.main.a: no such key. placement.pools.main has: nodes, slots"),
        ({"nodes": 0, "slots": 2}, "placement.pools.main.nodes: 0 given, at least 1"),
        ({"nodes": 2, "slots": "x"}, "placement.pools.main.slots: 'x' given, a whole number was expected"),
        ({"nodes": 2**16, "slots": 2}, "placement.pools.main: in all 131072 given, at least 1 and at most 65536"),
    ],
)
def test_what_is_no_size_is_told(given: Any, problem: str) -> None:
    (found,) = pool_sizes.problems({"main": given, "other": 1})
    assert found.startswith(problem)


def test_one_pool_can_have_the_rest() -> None:
    (found,) = pool_sizes.problems({"one": "auto", "two": 1, "three": "auto"})
    assert found.startswith("placement.pools.three: auto given, as for one")


def test_a_pool_is_no_single_value() -> None:
    with pytest.raises(
        ConfigError,
        match=r"placement\.pools: wrong type: 3 given; values by name were expected, as placement\.pools\.NAME",
    ):
        pools("placement.pools=3")


def test_another_size_changes_how_a_resumed_run_is_split_up() -> None:
    before, now = (
        compose.compose("train", ["experiment=addition", f"placement.pools.main={size}"]).to_config()
        for size in ("2", "{nodes: 2, slots: 1}")
    )
    changes = resume_diff.changes(compose.resolved_yaml(before), compose.resolved_yaml(now), now)
    assert changes.numbers == [] and "placement.pools.main: 2 in the checkpoint, nothing now" in changes.sharding
