"""What all tests share: hypothesis' settings, ranks (processes that start at their first call) and tiny models."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests import units
from tests.forked_ranks import fork_server
from tests.spmd import Ranks, lacking
from tests.tiny import tiny_model

# The first call of a torch operation takes long, and the machine may be busy: time is not what these tests judge.
# `make test-all` asks for the thorough profile.
settings.register_profile("quick", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("quick")

# Ray gives its processes a niceness of 15: beside other tests' processes a run would then hardly come to its turn.
os.environ.setdefault("RAY_worker_niceness", "0")

GetRanks = Callable[[int], Ranks]
GetModel = Callable[..., Path]
FORKS = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> units.ByUnit:
    return units.ByUnit(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give pytest-xdist's processes one server of forks, so that the engines are imported once for all of them.

    Without tests on ranks nothing is forked.
    """
    if "ranks" not in units.left_out(node.config.option.markexpr):
        node.workerinput["forks"] = environment_of_forks(node.config)


def environment_of_forks(config: pytest.Config) -> dict[str, str]:
    """The environment of `fork_server`, which starts at the first call and ends with the tests."""
    if FORKS not in config.stash:
        server = ExitStack()
        config.stash[FORKS] = server.enter_context(fork_server())
        config.add_cleanup(server.close)
    return config.stash[FORKS]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file of which `-m` wants no test: those of ranks import the engines, which takes seconds."""
    return True if units.unwanted(collection_path, config.option.markexpr) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the collector all that is imported by now, hundreds of thousands of objects, at each of its rounds."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if misplaced := units.misplaced(items):
        raise pytest.UsageError("\n".join(misplaced))
    if hasattr(config, "workerinput"):
        units.longest_first(items)


@contextmanager
def starting_ranks() -> Iterator[GetRanks]:
    """`get(world)`: processes of that number, started at the first call and ended on leaving.

    Where there are GPUs, but not so many, the test is skipped.
    """
    made: dict[int, Ranks] = {}

    def get(world: int) -> Ranks:
        if reason := lacking(world, torch.cuda.device_count()):
            pytest.skip(reason)
        if world not in made:
            made[world] = Ranks(world)
        return made[world]

    try:
        yield get
    finally:
        for found in made.values():
            found.stop()


@pytest.fixture(scope="session")
def ranks() -> Iterator[GetRanks]:
    """`ranks(world)`: the session's processes of that number; on them runs what is in an importable module."""
    with starting_ranks() as get:
        yield get


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium, for playwright's `executable_path`; the tests that ask for it are marked `browser`."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("tests marked `browser` need Chromium: apt-get install chromium fonts-dejavu-core", pytrace=False)
    return found


@pytest.fixture(scope="session")
def forks(pytestconfig: pytest.Config) -> dict[str, str]:
    """The environment of runs that are forked from a process that has imported the engines; nothing on GPUs."""
    if torch.cuda.device_count():
        return {}
    given: dict[str, dict[str, str]] = getattr(pytestconfig, "workerinput", {})
    return given["forks"] if "forks" in given else environment_of_forks(pytestconfig)


@pytest.fixture
def fresh_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that no signal has reached, and that nohup has not started."""
    from hybridflow import interrupt

    monkeypatch.setattr(interrupt, "_state", interrupt._State())  # a cluster that tests share heeds signals already
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def one_vllm_a_process() -> None:
    """On GPUs new processes: there a process has one vLLM, whose memory pool asserts that it is alone, even asleep."""
    if torch.cuda.device_count():
        Ranks.stop_all()


@pytest.fixture(scope="session")
def ranks1(ranks: GetRanks) -> Ranks:
    """One rank."""
    return ranks(1)


@pytest.fixture(scope="session")
def ranks2(ranks: GetRanks) -> Ranks:
    """Two ranks."""
    return ranks(2)


@pytest.fixture(scope="session")
def ranks4(ranks: GetRanks) -> Ranks:
    """Four ranks."""
    return ranks(4)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GetModel:
    """`tiny(**options)`: the folder of a `tests.tiny.tiny_model`, made once a session. Nobody writes to it."""
    made: dict[tuple[tuple[str, object], ...], Path] = {}

    def get(**options: object) -> Path:
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = tiny_model(tmp_path_factory.mktemp("tiny"), **options)  # type: ignore[arg-type]
        return made[key]

    return get
