"""A driver that is killed while responses are generated, then a rank: rows that were finished are kept, taught once."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from benchmarks.fault_plugin import FAULT, MARK
from hybridflow.observe.run_folder import JOURNAL
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.journal_records import Record, decode, whole_records
from tests.trainer.conftest import FAULTS, SMALL, Launch, Ran
from tests.trainer.processes import gone_within, start_marked, wait_until

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(900)]

# Four rows at a time, by two ranks together, so that a call has rows that are finished and rows that are not.
DURABLE = (
    "experiment=addition",
    "algorithm=grpo",
    FAULTS,
    "algorithm.prompts_per_step=8",
    "algorithm.samples_per_prompt=2",
    "algorithm.policy_loss.entropy_coef=0.01",
    "rollout.parallel.tensor=2",
    "rollout.recovery=durable",
    "trainer.steps=4",
    "trainer.save_every=2",
    "trainer.log_rollouts_every=1",
    "rollout.max_concurrent_rows=4",
)
ROWS = 16
KILLED = "actor.generate_sequences:4:0:wait_in_rows"  # after a validation and three steps: in the fourth
LOST = "actor.generate_sequences:1:0:die_in_rows"  # in the fourth too, of the resumed run


def sampled(run: Path) -> dict[int, list[Record]]:
    """What is whole in the journal of a run, by the version of the weights."""
    found: dict[int, list[Record]] = defaultdict(list)
    for file in sorted((run / JOURNAL).glob("*.rows")):
        with file.open("rb") as stream:
            records = [decode(payload) for _, payload in whole_records(stream, file.stat().st_size)]
        for record in records:
            found[json.loads(record.conditions)["version"]].append(record)
    return found


def test_rows_outlive_the_driver_and_then_a_rank(
    place: Path, warm: Ran, launch: Launch, tmp_path: Path, forks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run goes back to a checkpoint from a step before: of that step all rows are there, of the next some,
    and these by the very weights that the run now comes to. Then a rank dies when it has made some more of them.
    """
    assert warm.status == 0, warm.output
    run = place / "runs/durable"
    mark = tmp_path / "mark"
    own = ["train", *SMALL, *DURABLE, "run.name=durable"]
    process, name = start_marked(own, place, **forks, **{FAULT: KILLED, MARK: str(mark)})
    wait_until(process, lambda: Path(f"{mark}.0").exists() and 6 in sampled(run))
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert gone_within(name, 20.0) == [] and process.returncode == -signal.SIGKILL, output
    journal = sampled(run)
    rows = [row for record in journal[6] for row in record.rows]
    assert sum(len(record.rows) for record in journal[4]) == ROWS and 0 < len(rows) < ROWS

    monkeypatch.setenv(FAULT, LOST)
    monkeypatch.setenv(MARK, str(tmp_path / "mark2"))
    resumed = launch("train", "durable", *DURABLE)
    assert resumed.status == 0 and "resuming from step 2: " in resumed.output, resumed.output
    known = [int(number) for number in re.findall(r"since the last checkpoint: (\d+) rows;", resumed.output)]
    assert known[0] == ROWS + len(rows) < known[1] <= 2 * ROWS, "when the driver was killed, and when the rank was"
    reused = {step["step"]: step["rollout/reused_rows"] for step in resumed.steps}
    assert reused == {0: 0, 1: 0, 2: ROWS, 3: known[1] - ROWS}
    assert [step["rollout/stale_rows"] for step in resumed.steps] == [0, 0, 0, 0]
    assert f"step 3: from the journal, as they had been sampled: {known[1] - ROWS} rows" in resumed.output
    assert resumed.steps[3]["rollout/rows"] == resumed.steps[3]["rollout/kept_rows"] == ROWS
    assert max(step["actor/rollout_log_prob_diff_max"] for step in resumed.steps) < 1e-5
    lines = [json.loads(line) for file in (run / "rollouts").iterdir() for line in file.read_text().splitlines()]
    learned = Counter(line["response"] for line in lines if line["step"] == 3)
    decoder = load_decoder(str(place / "models/addition"))
    assert learned.total() == ROWS and Counter(decoder(row.tokens.tolist()) for row in rows) <= learned
    assert not (run / JOURNAL).exists(), "all is saved, and the run is done"
