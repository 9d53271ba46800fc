"""A service of the cluster that ends, or is stopped: noticed, also while the main thread waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridflow.controller import ray_services
from hybridflow.controller.ray_services import PATIENCE, UNHEARD, ServiceWatch
from hybridflow.errors import HybridFlowError


@pytest.fixture
def service() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


class Main:
    """A main thread that waits in Ray, or does not, and what was said for it."""

    def __init__(self) -> None:
        self.waits = False
        self.told: list[str] = []

    def watch(self, service: subprocess.Popen[bytes]) -> ServiceWatch:
        return ServiceWatch({"raylet": service.pid}, lambda: self.waits, self.told.append)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def test_one_that_ends_is_lost_at_once(service: subprocess.Popen[bytes]) -> None:
    watch = Main().watch(service)
    assert watch.problem() == ""
    service.kill()
    service.wait()
    line = f"ray: the cluster's node service raylet (process {service.pid}) has ended, and without it no process"
    assert watch.problem().startswith(line)


def test_one_that_stays_stopped_is_lost_and_ended(service: subprocess.Popen[bytes]) -> None:
    watch = Main().watch(service)
    stop(service)
    for _ in range(PATIENCE):
        assert watch.problem() == ""
        watch.end_stopped()  # Ctrl-Z may have stopped it, for a moment
        assert service.poll() is None
        watch.look()
    assert "raylet" in watch.problem() and "is stopped (SIGSTOP)" in watch.problem()
    watch.end_stopped()
    assert service.wait() == -signal.SIGKILL


def test_a_main_thread_that_waits_for_it_is_given_up(service: subprocess.Popen[bytes]) -> None:
    main = Main()
    watch = main.watch(service)
    stop(service)
    for _ in range(PATIENCE + UNHEARD):
        watch.look()
        assert main.told == [], "one that is not in Ray will hear of it; and the others may be about to"
    main.waits = True
    for _ in range(UNHEARD):
        watch.look()
        assert main.told == []
    watch.look()
    assert main.told == [watch.problem()]


def test_the_end_of_the_process_leaves_no_folder_of_the_cluster(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = tmp_path / "hf-ray-mine"
    (session / "r/session_1").mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        ray_services._end_process([session], "ray: the node service is gone")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert not session.exists()
    assert capfd.readouterr().err.startswith("hybridflow: ray: the node service is gone. Give the same command again")


def test_what_is_raised_because_of_it_tells_the_loss(
    service: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_services, "pids", lambda: {"gcs_server": service.pid})

    def fail(lost: bool) -> None:
        with ray_services.watched():
            if lost:
                service.kill()
                service.wait()
            raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        fail(lost=False)
    with pytest.raises(HybridFlowError, match=r"head service gcs_server .* has ended"):
        fail(lost=True)


def test_services_of_a_cluster_that_was_left_are_not_missed(
    service: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a block within another one end the looking after the outer one's."""
    before = ray_services._watch
    monkeypatch.setattr(ray_services, "pids", lambda: {"gcs_server": service.pid})
    with ray_services.watched():
        outer = ray_services._watch
        with ray_services.watched():
            inner = ray_services._watch
        assert ray_services._watch is outer and inner._over.is_set() and not outer._over.is_set()
    service.kill()
    service.wait()
    assert ray_services._watch is before and outer._over.is_set()
    assert "gcs_server" not in ray_services.lost()
    ray_services.raise_if_lost()
