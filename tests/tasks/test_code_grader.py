"""Grader `code_tests`: refused without a sandbox (here), and what a program may do in one (marked `system`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridflow.errors import HybridFlowError
from hybridflow.tasks import GradedRow
from hybridflow.tasks.code_grader import CodeTestsGrader, row_tests
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.grading_process import GradingOrder, GradingProcess

PAIRS = [{"stdin": "1 2\n", "stdout": "3\n"}, {"input": "5 5", "output": "10"}]
ASSERTS = ["assert add(1, 2) == 3", "assert add(5, 5) == 10"]
READS = "print(sum(map(int, input().split())))"
DEFINES = "def add(a, b):\n    return a + b"
system = pytest.mark.system


def test_it_is_refused_where_bubblewrap_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        HybridFlowError, match=r"runs no program outside of a sandbox: bwrap is not on the PATH;.*package bubblewrap"
    ):
        bind("code_tests")


def test_it_is_refused_where_bubblewrap_makes_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HybridFlowError, match="cannot make a sandbox here: No permissions"):
        bind("code_tests")


@pytest.mark.parametrize("tests", [None, [], {}, [3], [{"stdin": "1"}], [{"stdout": 3}], [""], 5])
def test_a_row_without_tests_cannot_be_judged(tests: Any) -> None:
    with pytest.raises(ValueError, match=r"row's metadata is"):
        row_tests({"tests": tests}, "tests")


def test_tests_are_written_in_several_ways() -> None:
    pairs = [("1 2\n", "3\n"), ("5 5", "10")]
    for written, expected in (
        (PAIRS, pairs),
        (json.dumps(PAIRS), pairs),
        (ASSERTS, ASSERTS),
        (ASSERTS[0], ASSERTS[:1]),
    ):
        assert row_tests({"tests": written}, "tests") == expected


@pytest.fixture(scope="module")
def grader() -> CodeTestsGrader:
    """The grader, or a failure that names the package."""
    assert shutil.which("bwrap"), "install the package bubblewrap: these tests run programs in its sandbox"
    return CodeTestsGrader(test_s=3.0, file_mb=2)


def grade(grader: CodeTestsGrader, response: str, tests: Any = PAIRS) -> float:
    return grader(GradedRow(response, "", metadata={"tests": tests}))


@system
@pytest.mark.parametrize(
    ("response", "tests", "expected"),
    [
        (READS, PAIRS, 1.0),
        (f"Here:\n```python\n{READS}\n```\nDone.", PAIRS, 1.0),
        (f"```python\n{READS}\n```\nor\n```python\nprint(3)\n```", PAIRS, 0.0),
        ("print(3)", PAIRS, 0.0),
        (f"{READS}\nraise SystemExit(1)", PAIRS, 0.0),
        (f"if __name__ == '__main__':\n    {READS}", PAIRS, 1.0),
        (DEFINES, ASSERTS, 1.0),
        (DEFINES, '["assert add(1, 2) == 3"]', 1.0),
        (DEFINES, "assert add(1, 2) == 3\nassert add(0, 0) == 0", 1.0),
        (DEFINES, ["assert add(1, 2) == 4"], 0.0),
        (f"{DEFINES}\nraise SystemExit(0)", ASSERTS, 0.0),
        ("import os\nos._exit(0)", ASSERTS, 0.0),
        (f"from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int\n{DEFINES}", ASSERTS, 1.0),
        ("I cannot write programs.", PAIRS, 0.0),
        ("", PAIRS, 0.0),
        ("print('\ud800')\0", PAIRS, 0.0),
        ("print('é漢', input())", [{"stdin": "ß", "stdout": "é漢 ß"}], 1.0),
    ],
)
def test_programs(grader: CodeTestsGrader, response: str, tests: Any, expected: float) -> None:
    assert grade(grader, response, tests) == expected


@system
def test_the_share_that_passes_as_an_option() -> None:
    partial = CodeTestsGrader(partial=True)
    assert grade(partial, "print(3)") == 0.5
    assert grade(partial, READS) == 1.0
    assert grade(partial, "") == 0.0


@system
@pytest.mark.parametrize(
    "program",
    [
        "import socket\nsocket.create_connection(('127.0.0.1', 1), 1)",
        "import socket\nsocket.socket().connect(('192.0.2.1', 80))",
        f"open({__file__!r}).read()",
        "open('/etc/passwd').read()",
        "open('/usr/written', 'w')",
        "open('/written', 'w')",
        "open('/dev/written', 'w')",
        "b'a' * (2 << 30)",
        "open('big', 'wb').write(b'a' * (3 << 20))",
        "for i in range(40): open(str(i), 'wb').write(b'a' * (1 << 20))",
        "import os\nassert set(os.environ) - {'PWD', 'LC_CTYPE'}",
        "import os\nassert [pid for pid in os.listdir('/proc') if pid.isdigit() and int(pid) > 2]",
        "while True: print('a' * 1000)",
        "while True: pass",
        "import time\ntime.sleep(600)",
        "import os\nos.kill(1, 9)\nimport time\ntime.sleep(600)",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.setuid(0)\nos.mkdir('/mnt')",
    ],
)
def test_what_a_program_cannot_do(grader: CodeTestsGrader, program: str) -> None:
    assert grade(grader, f"{program}\nprint('done')", [{"stdout": "done"}]) == 0.0


@system
def test_it_may_write_in_its_home_and_finds_it_empty(grader: CodeTestsGrader) -> None:
    program = "import os\nprint(os.listdir('.'), os.listdir('/tmp'))\n"
    program += "for a in ('a', '/tmp/a'):\n    open(a, 'w').write('a')"
    assert grade(grader, program, [{"stdout": "[] []"}] * 2) == 1.0


def running(mark: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if mark in line]


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@system
def test_nothing_outlives_its_time(grader: CodeTestsGrader) -> None:
    mark = f"sleeper-{os.getpid()}"
    child = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{mark}'])"
    )
    assert grade(grader, f"{child}\nimport time\ntime.sleep(600)", [{"stdout": ""}]) == 0.0
    wait_until(lambda: not running(mark))
    assert grade(grader, f"{child}\nprint('done')", [{"stdout": "done"}]) == 1.0, "a child may be left to the sandbox"
    wait_until(lambda: not running(mark))


@system
def test_the_deadline_of_a_row_ends_a_program_too() -> None:
    mark = f"sleeper-{os.getpid()}"
    program = f"import os, sys\nos.execv(sys.executable, ['python', '-c', 'import time; time.sleep(600)', '{mark}'])"
    options = {"test_s": 600.0, "row_s": 600.0}
    process = GradingProcess(GradingOrder([bind("code_tests", options)], [options], deadline_s=2.0))
    (outcome,) = process.grade(0, [GradedRow(program, "", metadata={"tests": PAIRS})])
    process.close()
    assert outcome is not None and outcome.kind == "late"
    wait_until(lambda: not running(mark))


@system
def test_all_tests_of_a_row_share_its_time() -> None:
    partial = CodeTestsGrader(partial=True, test_s=1.0, row_s=1.0)
    begun = time.monotonic()
    assert grade(partial, "while True: pass", PAIRS * 20) == 0.0
    assert time.monotonic() - begun < 5.0


@system
@given(response=st.text(max_size=40))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_response_breaks_it(grader: CodeTestsGrader, response: str) -> None:
    assert grade(grader, response, [{"stdout": "never this"}]) == 0.0
