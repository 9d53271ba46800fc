"""Bad endings are quick, say why in their last line, and leave no process."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.trainer.conftest import ONE_RANK, SMALL, Ended, Ran
from tests.trainer.processes import gone_within, start_marked

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]  # what several tests read is run in the first

DEADLINE_S = 10.0


def logged(place: Path, name: str) -> list[str]:
    """The lines of a run's log."""
    return (place / "runs" / name / "logs/driver.log").read_text().splitlines()


def test_a_driver_that_is_killed_takes_all_of_its_run_with_it(killed: Ended) -> None:
    assert killed.status == -signal.SIGKILL
    assert killed.left == []
    assert killed.seconds < DEADLINE_S


def test_sigterm_to_every_process(interrupted: Ended, place: Path) -> None:
    """The step that the run was in ends, is saved, and the last line says how to go on."""
    assert interrupted.left == []
    assert interrupted.seconds < 3 * DEADLINE_S  # the step is taken to its end first, beside other tests
    assert interrupted.status == 75
    told = re.search(r"resuming from step (\d): .*interrupted by SIGTERM: the run saves", interrupted.output, re.DOTALL)
    assert told, interrupted.output
    last = interrupted.output.strip().splitlines()[-1]
    before = "hybridflow: interrupted by SIGTERM: "
    lines = [line.partition(": ")[2] for line in logged(place, "interrupted")]
    assert last.removeprefix("hybridflow: ") in lines, "the log has it too"
    assert last.startswith(f"{before}{int(told[1]) + 1} steps saved, and this goes on from there: hybridflow train ")
    assert last.endswith(" run.name=interrupted trainer.save_every=1 trainer.save_every=0")
    # Another test may have let it go on to its end.
    ends = Ran(0, "", place / "runs/interrupted").events("end")
    assert ("interrupted", int(told[1]) + 1) in [(event["status"], event["step"]) for event in ends]


def test_an_exception_in_a_grader(place: Path, warm: Ran, forks: dict[str, str]) -> None:
    (place / "my_grader.py").write_text(
        "from hybridflow.tasks import graders\n\n"
        "seen = 0\n\n"
        '@graders.register("breaks")\n'
        "def breaks(response, answer):\n"
        "    global seen\n"
        "    seen += 1\n"
        "    if seen > 50:\n"
        '        raise RuntimeError("the grader lost its marbles")\n'
        "    return 1.0\n"
    )
    run = ("train", *SMALL, "experiment=addition", "algorithm=grpo", "algorithm.prompts_per_step=16", "run.name=broken")
    own = ("plugins=[my_grader]", "reward.grader=breaks", "trainer.stop_at_accuracy=null", *ONE_RANK)
    process, mark = start_marked([*run, *own], place, **forks)
    output, _ = process.communicate(timeout=200)
    ended = time.monotonic()
    assert gone_within(mark, DEADLINE_S) == []
    assert time.monotonic() - ended < DEADLINE_S
    assert process.returncode == 1
    lines = output.strip().splitlines()
    assert "reward.compute_reward failed on rank" in lines[-1]
    assert lines[-1].endswith("RuntimeError: the grader lost its marbles")
    assert "grader 'breaks' failed on the response '" in lines[-1] and "(answer '" in lines[-1]
    assert "my_grader.py" in output, "the grader's own traceback is shown"
    record = json.loads((place / "runs/broken/run.json").read_text())
    assert record["status"] == "failed" and "the grader lost its marbles" in record["error"]
    assert "compute_reward failed" in (place / "runs/broken/logs/main-0.log").read_text()
    assert logged(place, "broken")[-1].endswith("RuntimeError: the grader lost its marbles")
