"""The cause of an exception, in one line, whatever its class."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.controller import process_deaths
from hybridflow.errors import HybridFlowError
from hybridflow.runtime.failure import Failure, RoleError, describe
from tests.controller.rank_functions import odd_errors

FULL = "No space left on device: /full/file"
CAUSES = {
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
    "generator": "GeneratorExit: early",
    "unspeakable": "tests.controller.rank_functions.UnspeakableError: <exception str\\(\\) failed>",
    "huge": "RuntimeError: h{900,1000} … \\(10000014 characters\\) … h{1000}",
    "lines": "RuntimeError: first second",
    "group": "KeyError: 'a'",
    "of ranks": FULL,
    "wrapped": FULL,
    "empty": "tests.controller.rank_functions.OfRanks: (OfRanks ?)+",
}


@pytest.mark.parametrize("what", CAUSES)
def test_the_cause_in_one_line(what: str) -> None:
    line, trace = describe(odd_errors()[what])
    assert re.fullmatch(CAUSES[what], line)
    assert len(trace) < 21_000


def test_a_cause_is_not_looked_for_behind_what_was_raised_on_purpose() -> None:
    error = ValueError("row 3 has no answer")
    error.__cause__ = KeyError("answer")
    assert describe(error)[0] == "ValueError: row 3 has no answer"


def test_a_circle_of_causes_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__context__, second.__context__ = second, first
    assert describe(first)[0] == "RuntimeError: first"


def test_what_is_meant_for_the_user_is_one_line() -> None:
    line, trace = describe(HybridFlowError("No space left on device: /x"))
    assert (line, trace) == ("No space left on device: /x", "")
    failure = Failure("actor", 0, "n", "save_checkpoint", line, trace)
    assert str(RoleError(failure, [])) == "actor.save_checkpoint failed on rank 0 (n): No space left on device: /x"


def test_what_failed_after_is_a_count() -> None:
    others = [Failure("actor", rank, "n", "update_actor", "e", "t") for rank in range(900)]
    others += [Failure("reward", 0, "n", "compute_reward", "e", "t")]
    lines = str(RoleError(Failure("actor", 3, "n", "update_actor", "boom", "trace"), others)).splitlines()
    assert lines == [
        "trace",
        "(901 more failed after it: actor.update_actor on 900, reward.compute_reward on 1)",
        "actor.update_actor failed on rank 3 (n): boom",
    ]


def kernel_tells() -> bool:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and tuple(map(int, release.groups())) >= (6, 15)


@pytest.mark.skipif(not kernel_tells(), reason="Linux tells it since 6.15")
@pytest.mark.parametrize(
    ("does", "ending"), [("os._exit(3)", "exit code 3"), ("os.kill(os.getpid(), 11)", "killed by SIGSEGV")]
)
def test_how_a_process_of_others_ended(does: str, ending: str) -> None:
    program = f"import os\nprint(os.getpid(), flush=True)\ninput()\n{does}"
    shell = ["sh", "-c", '"$0" -c "$1"; sleep 60', sys.executable, program]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        pid = int(parent.stdout.readline())
        process_deaths.watch(pid)
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        while Path(f"/proc/{pid}").exists():
            pass
        assert process_deaths.ending(pid, "") == ending
        process_deaths.forget(pid)
        parent.kill()


def test_what_ray_says_must_do_where_the_kernel_says_nothing() -> None:
    assert (
        process_deaths.ending(None, "Worker exits with an exit code 1. The process receives a SIGTERM.")
        == "killed by SIGTERM"
    )
    assert process_deaths.ending(None, "Worker exits unexpectedly. Worker exits with an exit code 4.") == "exit code 4"
    assert "short of memory" in process_deaths.ending(
        None, "Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: Task was"
    )
    assert "not known" in process_deaths.ending(None, "Worker unexpectedly exits with a connection error code 2.")


def test_errors_of_a_disk_name_the_file() -> None:
    with pytest.raises(OSError) as found:
        Path("/dev/full").write_text("x")
    assert describe(found.value)[0] == "No space left on device"
    assert describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"))[0] == "No space left on device: /x"
    assert describe(FileNotFoundError(2, "No such file", "x"))[0] == "FileNotFoundError: [Errno 2] No such file: 'x'"
