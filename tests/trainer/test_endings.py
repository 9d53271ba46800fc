"""Bad endings are quick, say why in their last line, and leave no process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.trainer.conftest import SMALL, Ran
from tests.trainer.processes import gone_within, left_of, start_marked

pytestmark = pytest.mark.ranks

DEADLINE_S = 10.0


def arguments(name: str, *overrides: str) -> list[str]:
    sizes = ["algorithm.prompts_per_step=16", "trainer.steps=1000", *SMALL]
    return ["train", "experiment=addition", "algorithm=grpo", f"run.name={name}", *sizes, *overrides]


def wait_for_steps(folder: Path, process, deadline_s: float = 200.0) -> None:
    """Until the run has taken some steps."""
    end = time.monotonic() + deadline_s
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.2)


def test_ctrl_c(place: Path, warm: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    process, mark = start_marked(arguments("interrupted"), place, monkeypatch)
    wait_for_steps(place / "runs" / "interrupted", process)
    assert left_of(mark), "the mark must find the processes of a running job"
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    output, _ = process.communicate(timeout=60)
    assert gone_within(mark, DEADLINE_S - (time.monotonic() - begin)) == []
    assert time.monotonic() - begin < DEADLINE_S
    assert process.returncode == 130
    assert "interrupted" in output.strip().splitlines()[-1].lower()


def test_an_exception_in_a_grader(place: Path, warm: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "my_grader.py").write_text(
        "from hybridflow.tasks import graders\n\n"
        "seen = 0\n\n"
        '@graders.register("breaks")\n'
        "def breaks(response, answer):\n"
        "    global seen\n"
        "    seen += 1\n"
        "    if seen > 200:\n"
        '        raise RuntimeError("the grader lost its marbles")\n'
        "    return 1.0\n"
    )
    overrides = ("plugins=[my_grader]", "reward.grader=breaks")
    process, mark = start_marked(arguments("broken", *overrides), place, monkeypatch)
    output, _ = process.communicate(timeout=200)
    ended = time.monotonic()
    assert gone_within(mark, DEADLINE_S) == []
    assert time.monotonic() - ended < DEADLINE_S
    assert process.returncode == 1
    lines = output.strip().splitlines()
    assert "reward.compute_reward failed on rank" in lines[-1]
    assert lines[-1].endswith("RuntimeError: the grader lost its marbles")
    assert "my_grader.py" in output, "the grader's own traceback is shown"
