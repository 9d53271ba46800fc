"""Looking at a machine: at this one, and at others that are described by the files of their kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hybridflow.config import temporary_folder
from hybridflow.preflight import machine
from hybridflow.preflight.machine import RayService, look, room, services
from hybridflow.runtime import meeting_folder


def test_this_machine(tmp_path: Path) -> None:
    here = look(tmp_path / "not" / "there")
    assert here.cpus == len(os.sched_getaffinity(0)) and here.memory and here.memory.left > 0
    assert here.shared_memory and 0 < here.shared_memory.free <= here.shared_memory.total
    assert here.rooms["runs"].path == str(tmp_path / "not" / "there") and here.rooms["runs"].free > 0
    assert not here.loopback and not here.temporary and here.open_files > 0


def test_room_is_that_of_the_disk_where_a_folder_will_be(tmp_path: Path) -> None:
    assert room(tmp_path / "a" / "b").free == pytest.approx(room(tmp_path).free, rel=0.1)


def test_room_where_a_folder_cannot_be_looked_for(tmp_path: Path) -> None:
    assert room(tmp_path / ("a" * 300) / "b").free > 0, "the system refuses such a name, as it does a folder of others"


def test_a_place_that_this_user_may_not_write_to() -> None:
    assert not room(Path("/proc/sys/runs")).writable


def build_process(root: Path, pid: int, *command: str) -> None:
    (root / str(pid)).mkdir(parents=True)
    (root / str(pid) / "cmdline").write_bytes("\0".join(command).encode())


def test_services_of_ray_are_told_by_the_run_that_started_them(tmp_path: Path) -> None:
    going_on = meeting_folder.make(temporary_folder.PREFIX, tmp_path)
    killed = tmp_path / f"{temporary_folder.PREFIX}killed"
    root = tmp_path / "proc"
    build_process(root, 9, "/env/ray/core/src/ray/raylet/raylet", f"--log_dir={going_on}/r/session/logs")
    build_process(root, 10, "/env/ray/core/src/ray/gcs/gcs_server", f"--log_dir={killed}/r/session/logs")
    build_process(root, 11, "/env/ray/core/src/ray/gcs/gcs_server", "--log_dir=/tmp/ray/session/logs")
    build_process(root, 12, "python", f"{killed}/r/raylet")
    (root / "self").mkdir()
    assert list(services(root)) == [
        RayService(9, "raylet", str(going_on)),
        RayService(10, "gcs_server", str(killed), abandoned=True),
        RayService(11, "gcs_server"),
    ]
    assert not list(services(root, user=os.getuid() + 1))


def test_folders_of_runs_that_were_killed(tmp_path: Path) -> None:
    meeting_folder.make(temporary_folder.PREFIX, tmp_path)
    left = tmp_path / f"{meeting_folder.PREFIX}left"
    left.mkdir()
    (left / meeting_folder.OWNER).touch()
    (tmp_path / f"{meeting_folder.PREFIX}somebody-elses").mkdir()
    assert list(machine._abandoned(tmp_path)) == [left]


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"proc/self/cgroup": "0::/job\n"}, None),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/pids.max": "max\n"}, None),
        (
            {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/pids.max": "90\n", "sys/fs/cgroup/a/b/pids.max": "100"},
            90,
        ),
        ({"proc/self/cgroup": "4:pids:/job\n"}, None),
        ({}, None),
    ],
)
def test_the_most_processes_of_a_container(files: dict[str, str], most: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._most_processes(tmp_path) == most
