"""One local cluster for the tests of this folder, and pools on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray

from hybridflow.controller import Supervisor, cluster
from hybridflow.errors import HybridFlowError
from tests.controller.stage import Stage
from tests.forked_ranks import LIGHT, fork_server, forking

_open = ExitStack()
_shared: list[Stage] = []


@pytest.fixture(scope="session")
def light_forks() -> Iterator[dict[str, str]]:
    """The environment of light ranks that are forked from a process that has imported what they do."""
    with fork_server(LIGHT) as environment:
        yield environment


@pytest.fixture
def local_cluster(light_forks: dict[str, str]) -> None:
    """A cluster of 7 slots. It ends with this folder's last test, so that other tests may start their own."""
    if not ray.is_initialized():
        _open.enter_context(forking(light_forks))
        _open.enter_context(cluster(slots=7))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        _shared.clear()
        _open.close()


@pytest.fixture
def stage(local_cluster: None) -> Iterator[Stage]:
    """Four ranks that all tests share; no call on them may fail."""
    if not _shared:
        _shared.append(Stage(4))
    yield _shared[0]
    try:
        _shared[0].supervisor.wait_all()
    except HybridFlowError:  # one test's failure must not become that of all that follow
        _shared.pop().pool.close()
        raise


@pytest.fixture
def new_stage(local_cluster: None) -> Iterator[Callable[..., Stage]]:
    """`new_stage(slots, supervisor=None)`: a stage of this test's own, 3 slots in all; calls on it may fail."""
    made: list[Stage] = []

    def make(slots: int, supervisor: Supervisor | None = None) -> Stage:
        made.append(Stage(slots, supervisor))
        return made[-1]

    yield make
    for own in made:
        own.pool.close()
