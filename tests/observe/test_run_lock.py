"""The lock of a run folder: one process at a time, told by whom, and gone with the process that held it."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe import run_lock
from hybridflow.observe.run_lock import LOCK, is_held, locked

pytestmark = pytest.mark.processes

HOLDER = """
import sys, time
from pathlib import Path
from hybridflow.observe.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    {then}
"""


@contextmanager
def another_holds(folder: Path, then: str = "time.sleep(60)") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder."""
    program = [sys.executable, "-c", HOLDER.format(then=then), str(folder)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with another_holds(tmp_path / "mine") as process:
        wanted = rf"run\.name: .*mine is in use by process {process.pid} on {socket.gethostname()}, since 20\d\d-"
        with pytest.raises(ConfigError, match=wanted) as refused, locked(tmp_path / "mine"):
            pass
        assert refused.value.exit_code == 2
    with locked(tmp_path / "mine"):
        assert (tmp_path / "mine" / LOCK).exists()


RACE = """
import sys, time
from pathlib import Path
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe.run_lock import locked
inside, refused, end = 0, 0, time.time() + 3
while time.time() < end:
    try:
        with locked(Path(sys.argv[1], "a/b")):
            mark = Path(sys.argv[1], "mark")
            mark.mkdir()  # fails if another is inside
            mark.rmdir()
            inside += 1
    except ConfigError as error:
        assert "in use" in str(error), error
        refused += 1
print(inside, refused)
"""


def test_a_race_for_a_folder_that_comes_and_goes(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in "123"
    ]
    counts = [list(map(int, racer.communicate(timeout=60)[0].split())) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(inside for inside, _ in counts) > 10 and sum(refused for _, refused in counts) > 0
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_by_a_link_it_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with another_holds(tmp_path / "mine"), pytest.raises(ConfigError, match="in use"), locked(tmp_path / "link/mine"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with another_holds(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).exists()
        with locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "child",
    [
        "import subprocess; p = subprocess.Popen(['sleep', '60'])",
        "r, w = os.pipe(); pid = os.fork()\n    if not pid: os.write(w, b'.'), time.sleep(60)\n    os.read(r, 1)",
    ],
)
def test_what_it_started_holds_nothing(tmp_path: Path, child: str) -> None:
    """The child lives on when its parent is gone."""
    program = [sys.executable, "-c", HOLDER.format(then=f"{child}\n    os._exit(0)").replace("sys,", "os, sys,")]
    parent = subprocess.Popen([*program, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True)
    parent.wait(timeout=30)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.killpg(parent.pid, signal.SIGKILL)


def test_a_child_that_unwinds_leaves_its_parents_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = subprocess.run([sys.executable, "-c", UNWINDS, str(tmp_path)], capture_output=True, text=True)
        assert child.returncode == 2 and "in use" in child.stderr
    both = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], capture_output=True, text=True)
    assert both.stdout == "still there: True\n", both.stderr


UNWINDS = """
import sys
from pathlib import Path
from hybridflow.observe.run_lock import locked
try:
    with locked(Path(sys.argv[1])):
        pass
except Exception as error:
    sys.exit(print(error, file=sys.stderr) or error.exit_code)
"""
FORKS = """
import os, sys
from pathlib import Path
from hybridflow.observe.run_lock import LOCK, locked

folder = Path(sys.argv[1])
with locked(folder):
    if (pid := os.fork()) == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    print("still there:", (folder / LOCK).exists())
"""


def test_the_process_that_holds_it_may_enter_again(tmp_path: Path) -> None:
    with locked(tmp_path / "mine"):
        with locked(tmp_path / "mine"):
            pass
        assert (tmp_path / "mine" / LOCK).exists()
    assert not (tmp_path / "mine").exists(), "a folder that it made, and that is empty"


@pytest.mark.parametrize("left", ["", "[]", "{", "\x1b]0;x", '{"pid": 1}'])
def test_what_a_stale_file_says_does_not_matter(tmp_path: Path, left: str) -> None:
    (tmp_path / LOCK).write_text(left)
    with locked(tmp_path):
        assert re.search(rf'"pid": {os.getpid()}\b', (tmp_path / LOCK).read_text())


def test_another_process_of_the_same_number_holds_nothing(tmp_path: Path) -> None:
    """A run was killed, and its number given to another process since; who watches the run must not wait for that."""
    with locked(tmp_path):
        left = json.loads((tmp_path / LOCK).read_text())
        assert is_held(tmp_path, os.getpid())
    (tmp_path / LOCK).write_text(json.dumps(left))
    assert is_held(tmp_path), "by what the file says"
    (tmp_path / LOCK).write_text(json.dumps(left | {"began": left["began"] - 1}))
    assert not is_held(tmp_path)
    (tmp_path / LOCK).write_text(json.dumps({name: left[name] for name in ("pid", "host", "since")}))
    assert is_held(tmp_path), "an earlier version's does not say when it began"


def test_a_process_that_has_ended_holds_nothing_though_nobody_has_asked_how(tmp_path: Path) -> None:
    """As in a container whose first process asks after nobody."""
    with locked(tmp_path):
        left = json.loads((tmp_path / LOCK).read_text())
    with subprocess.Popen(["sleep", "60"]) as child:
        (tmp_path / LOCK).write_text(json.dumps({"pid": child.pid, "host": left["host"], "since": left["since"]}))
        assert is_held(tmp_path)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_held(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = locked(tmp_path / "file/mine")
    with pytest.raises(ConfigError, match=r"run\.root: cannot write into .*file/mine: Not a directory"), inside:
        pass
    with pytest.raises(ConfigError, match=r"run\.root: cannot write into /proc/nowhere"), locked(Path("/proc/nowhere")):
        pass
    (tmp_path / LOCK).symlink_to("file")
    with (
        pytest.raises(ConfigError, match=rf"run\.root: cannot write {tmp_path}/\.lock: Too many levels"),
        locked(tmp_path),
    ):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(run_lock.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", no_locks)
    with another_holds(tmp_path), pytest.raises(ConfigError, match="in use by process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
    (tmp_path / LOCK).write_text('{"pid": 1, "host": "elsewhere", "since": "2026-01-01"}')
    wanted = r"in use by process 1 on elsewhere.*If that run is no longer there, remove .*\.lock"
    with pytest.raises(ConfigError, match=wanted), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_seen_once_it_is_locked_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = run_lock._identity

    def of_files_alone(status: os.stat_result) -> run_lock.Identity:
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ESTALE, "Stale file handle")
        return known(status)

    monkeypatch.setattr(run_lock, "_identity", of_files_alone)
    with pytest.raises(OSError, match="Stale file handle"), locked(tmp_path):
        pass
    assert not run_lock._held and not run_lock._folders


def test_a_folder_that_was_moved_is_noticed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with locked(mine):
        run_lock.check(mine)
        mine.rename(tmp_path / "away")
        with pytest.raises(HybridFlowError, match=r"mine: somebody moved .*\(it is not there any more\)"):
            run_lock.check(mine)
        mine.mkdir()
        (mine / LOCK).touch()  # as of another command that came meanwhile
        with pytest.raises(HybridFlowError, match="another is in its place"):
            run_lock.check(mine)
    assert (mine / LOCK).exists()
    (tmp_path / "away" / LOCK).unlink()
