"""The process that grades: what it costs, what it survives, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridflow.errors import HybridFlowError
from hybridflow.tasks import Grade, GradedRow
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grading_channel import Channel
from hybridflow.tasks.grading_guard import descendants
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess
from tests.tasks import child_graders  # noqa: F401  registers the graders

pytestmark = pytest.mark.processes

NAMES = (
    "does", "does_async", "does_batched", "does_batched_async", "counts_running", "has_loop", "sees", "doubling",
    "steps", "starts_another", "exact",
)  # fmt: skip
SOON_S = 2.0


def build_process(*names: str, **changes: float) -> GradingProcess:
    chosen = [bind(name, {"times": 3.0} if name == "doubling" else {}) for name in names]
    options = [{"times": 3.0} if name == "doubling" else {} for name in names]
    return GradingProcess(GradingOrder(chosen, options, **{"deadline_s": 60.0, "concurrency": 3, **changes}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def process() -> Iterator[GradingProcess]:
    """A process whose rows have a deadline that only what hangs passes."""
    started = build_process(*NAMES, deadline_s=SOON_S)
    yield started
    started.close()


def grades(process: GradingProcess, name: str, *responses: str, stop: bool = False) -> list[float | str | None]:
    """The value of each row, or how it failed."""
    rows = [GradedRow(response, "12", response_tokens=len(response)) for response in responses]
    outcomes = process.grade(NAMES.index(name), rows, stop=stop)
    return [o and (o.grade.value if o.grade else o.problem or o.kind) for o in outcomes]


def pid_of(process: GradingProcess) -> int:
    assert process._child is not None
    return process._child._process.pid


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} is left"
        time.sleep(0.01)


def test_it_is_known_how_much_memory_graders_took(process: GradingProcess) -> None:
    grades(process, "does", "value 1")
    assert 2**22 < process.memory_peak < 2**31, "an interpreter, and no model"
    idle = build_process("exact")
    assert idle.memory_peak == 0, "it has graded nothing yet"
    idle.close()
    assert idle.memory_peak == 0


def test_it_starts_once_and_what_a_grader_prints_is_no_answer(process: GradingProcess) -> None:
    assert grades(process, "does", "ab", "", "a") == [2.0, 0.0, 1.0]
    first = pid_of(process)
    assert grades(process, "does") == []
    assert grades(process, "doubling", "ab") == [6.0], "with its options"
    assert grades(process, "exact", "12", " 12\n", "\ud800", "13") == [1.0, 1.0, 0.0, 0.0]
    assert grades(process, "has_loop", "abc") == [3.0]
    assert pid_of(process) == first


DEATHS = [
    ("exits", "exit code 3"),
    ("crashes", "killed by SIGSEGV"),
    ("is killed", "killed by SIGKILL (by the kernel, if memory ran out: see dmesg on its node)"),
]


@pytest.mark.parametrize(("response", "told"), DEATHS)
def test_a_row_at_which_it_dies_has_failed_and_the_others_are_graded(
    process: GradingProcess, response: str, told: str
) -> None:
    found = grades(process, "does", "ab", response, "a", "raises", "abc", "interrupts")
    assert found == [2.0, told, 1.0, "RuntimeError: no", 3.0, "KeyboardInterrupt: "]


def test_so_has_a_row_at_which_it_hangs_or_lets_go_of_its_channel(process: GradingProcess) -> None:
    assert grades(process, "does", "ab", "hangs", "a") == [2.0, "late", 1.0]


def test_a_row_at_which_it_forks_is_graded_once(process: GradingProcess) -> None:
    assert grades(process, "does", "ab", "forks", "abc") == [2.0, 5.0, 3.0]
    assert grades(process, "does", "ab", "forks", "abc") == [2.0, 5.0, 3.0]


def test_one_that_writes_into_the_channel_is_ended(process: GradingProcess) -> None:
    told = grades(process, "does", "garbles")[0]
    assert told in ("what came through its channel is no message", "exit code 1")
    assert grades(process, "does", "ab") == [2.0]


@pytest.mark.parametrize("name", ["does_async", "does_batched", "does_batched_async"])
def test_of_rows_that_are_graded_together_the_one_that_kills_it_is_found(process: GradingProcess, name: str) -> None:
    alone = 100.0 if "batched" in name else 0.0
    found = grades(process, name, "ab", "exits", "a", "raises", "abc", "abcd", "interrupts")
    failed = ["RuntimeError: no", "KeyboardInterrupt: "]
    assert found == [alone + 2, "exit code 3", alone + 1, failed[0], alone + 3, alone + 4, failed[1]]


def test_an_async_row_that_passes_its_deadline_is_ended_alone(process: GradingProcess) -> None:
    assert grades(process, "does_async", "ab") == [2.0]
    first = pid_of(process)
    assert grades(process, "does_async", "ab", "waits", "a", "b") == [2.0, "late", 1.0, 1.0]
    assert pid_of(process) == first, "it was told in its own process"


def test_so_many_rows_are_graded_at_the_same_time(process: GradingProcess) -> None:
    assert max(grades(process, "counts_running", *"abcdefgh")) == 3.0  # type: ignore[type-var]
    assert grades(process, "does_batched", "ab", "a") == [202.0, 201.0]
    assert grades(process, "does_batched_async", "ab", "a") == [202.0, 201.0]


@pytest.mark.parametrize("name", ["does", "does_async"])
def test_it_may_stop_at_the_first_failure(process: GradingProcess, name: str) -> None:
    found = grades(process, name, "a", "raises", *"abcdefgh", stop=True)
    assert found[1] == "RuntimeError: no" and None in found


def test_a_row_is_seen_whole_and_has_values_of_tokens(process: GradingProcess) -> None:
    chat = [{"role": "user", "content": "say"}]
    row = GradedRow("ab", "12", "5+7=", chat, {"level": 1}, "sums", "length", True, "ab<|end|>", 3, 7)
    (seen,) = process.grade(NAMES.index("sees"), [row])
    ones = dict.fromkeys(("5+7=", "ab<|end|>", "length", "sums", "7", "level", "truncated"), 1.0)
    assert seen is not None and seen.grade == Grade(1.0, {**ones, "tokens": 3.0, "say": 2.0}, [], [])
    (stepped,) = process.grade(NAMES.index("steps"), [row])
    assert stepped is not None and stepped.grade == Grade(0.5, {}, [0.25] * 3, [(1, 1.0)])


@pytest.mark.parametrize("response", ["", "in a session of its own"])
def test_a_closed_one_leaves_nothing_and_what_it_started_ends_with_it(response: str, tmp_path: Path) -> None:
    started = build_process("starts_another")
    file = tmp_path / "numbers"
    assert started.grade(0, [GradedRow(response, str(file))])[0].grade == Grade(1.0, {}, [], [])  # type: ignore[union-attr]
    pids = [int(pid) for pid in file.read_text().split()]
    assert all(map(is_running, pids))
    started.close()
    for pid in pids:
        wait_for_end(pid)
    forgotten = build_process("exact")
    pid = pid_of(forgotten)
    del forgotten
    wait_for_end(pid)


def test_no_row_is_blamed_for_a_death_between_two_calls(process: GradingProcess) -> None:
    """As by the kernel, when memory runs out."""
    assert grades(process, "exact", "12") == [1.0]
    assert process._child is not None
    child = process._child._process
    (grading,) = descendants(child.pid)
    os.kill(grading, signal.SIGKILL)
    child.wait(20)
    assert grades(process, "exact", "12", "13") == [1.0, 0.0]


RANK = """
import signal
import sys
from tests.tasks.test_grading_process import build_process, pid_of
from hybridflow.tasks import GradedRow

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
process = build_process("starts_another", "does")
process.grade(0, [GradedRow("in a session of its own", sys.argv[1])])
print(pid_of(process), flush=True)
process.grade(1, [GradedRow("hangs", "12")])
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_rank_however_that_ends(ending: signal.Signals, tmp_path: Path) -> None:
    """In the middle of a row, too, and with all that its graders have started."""
    file = tmp_path / "numbers"
    with subprocess.Popen(
        [sys.executable, "-c", RANK, str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as rank:
        assert rank.stdout is not None
        pid = int(next(line for line in rank.stdout if line.strip().isdigit()))
        os.kill(rank.pid, ending)
    for one in (pid, *map(int, file.read_text().split())):
        wait_for_end(one)


def test_modules_that_cannot_be_imported_there_are_told() -> None:
    started = build_process("exact")
    started._order = GradingOrder([bind("exact")], [{"patern": "a"}])
    started.close()
    with pytest.raises(HybridFlowError, match=r"cannot import the graders: .*patern: no such option"):
        started.grade(0, [GradedRow("12", "12")])


def test_a_frame_that_came_in_part_is_kept_and_an_end_is_told() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    message = ["é\ud800", 1.5, None]
    Channel(theirs).send(message)
    whole = ours.recv(1 << 16)
    for byte in whole[:-1]:
        theirs.send(bytes([byte]))
        if byte == whole[8]:
            with pytest.raises(TimeoutError):
                channel.receive(0.001)
    theirs.send(whole[-1:])
    assert channel.receive(1.0) == message
    with pytest.raises(TypeError, match=r"object at .* cannot travel to another process"):
        channel.send([object()])
    theirs.close()
    with pytest.raises(EOFError):
        channel.receive(1.0)


def test_it_ends_also_where_a_signal_has_left_the_lock_of_its_process_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridflow.tasks.child_process.REAPED_WITHIN_S", 0.1)
    process = build_process("exact")
    process.grade(0, [GradedRow("12", "12")])
    child = process._child
    assert child is not None
    assert child._process._waitpid_lock.acquire(blocking=False)
    child.end()
    wait_for_end(child._process.pid)
