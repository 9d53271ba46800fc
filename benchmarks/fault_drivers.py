"""Rows of `benchmarks.faults`: a driver is killed, and the same command goes on, exactly or with finished rows."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.fault_ranks import PHASES
from benchmarks.fault_runs import Ended, Result, Row, Runs, compared, is_whole, run_name, seconds_between
from hybridflow.observe.run_folder import JOURNAL
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.journal_records import decode, whole_records

DURABLE = ("rollout.recovery=durable", "rollout.max_concurrent_rows=4")  # so that not all rows finish at once
STEP = 1  # in which the third call that samples is made: a validation and a step come before
STEP_ROWS = 32


def killed_driver(name: str, phase: str, runs: Runs) -> Result:
    """Kill the driver while a rank is in that phase: the run makes what it would have made."""
    call, rank = PHASES["colocated"][phase]
    number = 6 if phase == "update" else 2  # a step has four updates: after the first step, when one has been saved
    with runs.started(run_name(name), "colocated", [f"{call}:{number}:{rank}:wait"]) as running:
        running.wait_for_fault()
        running.process.kill()
        killed = running.process.wait()
    again = runs.run(run_name(name), "colocated")
    found = compared(again, runs.undisturbed("colocated"))
    resumed = again.line("resuming from step")
    return {
        "pass": killed == -signal.SIGKILL and again.status == 0 and resumed is not None and is_whole(found),
        "status": again.status,
        **found,
        "told": resumed or again.last,
    }


def killed_driver_durable(name: str, runs: Runs) -> Result:
    """Kill the driver when a rank has some rows of a step: they are taught, and not made again."""
    call, rank = PHASES["colocated"]["generate"]
    with runs.started(run_name(name), "colocated", [f"{call}:2:{rank}:wait_in_rows"], DURABLE) as running:
        running.wait_for_fault()
        running.wait_for(lambda: any(journaled(runs, running.folder)), "row in the journal")
        running.process.kill()
        running.process.wait()
        finished = journaled(runs, running.folder)
    again = runs.run(run_name(name), "colocated", more=DURABLE)
    return {**kept(again, finished.total(), finished), "told": again.line("from the journal") or again.last}


def lost_rank_durable(name: str, runs: Runs) -> Result:
    """Lose the rank that generates when it has some rows of a step: the run goes on with them."""
    call, rank = PHASES["disaggregated"]["generate"]
    ended = runs.run(run_name(name), "disaggregated", [f"{call}:2:{rank}:die_in_rows"], DURABLE)
    known = re.search(r"sampled since the last checkpoint: (\d+) rows?;", ended.line("in the journal") or "")
    told = ended.first("that it goes on after:")
    return {
        "detect_s": seconds_between(ended.happened(), told),
        "recover_s": seconds_between(told, ended.first("went on with step")),
        **kept(ended, int(known[1]) if known else 0, Counter()),
        "told": ended.line("from the journal") or ended.last,
    }


def kept(ended: Ended, finished: int, texts: Counter[str]) -> Result:
    """Judge a run that was interrupted with `finished` rows of a step.

    Args:
        texts: the responses of these, as far as they are known.
    """
    lines = [json.loads(line) for line in (ended.folder / "metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if line.get("step") == STEP and "rollout/reused_rows" in line)
    files = (ended.folder / "rollouts").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    learned = Counter(row["response"] for row in rows if row["step"] == STEP)
    lost = max(finished - int(step["rollout/reused_rows"]), (texts - learned).total())
    twice = learned.total() - STEP_ROWS
    agree = step["actor/rollout_log_prob_diff_max"] <= 1e-5
    return {
        "pass": ended.status == 0 and 0 < finished < STEP_ROWS and not lost and not twice and agree,
        "status": ended.status,
        "rows_kept": finished,
        "rows_lost": lost,
        "rows_twice": twice,
        "log_prob_diff": step["actor/rollout_log_prob_diff_max"],
    }


def journaled(runs: Runs, folder: Path) -> Counter[str]:
    """Count the responses that are whole in the journal of a run."""
    decoder = load_decoder(str(runs.place / "models/addition"))
    found: Counter[str] = Counter()
    for file in (folder / JOURNAL).glob("*.rows"):
        with file.open("rb") as stream:
            records = [decode(payload) for _, payload in whole_records(stream, file.stat().st_size)]
        found.update(decoder(row.tokens.tolist()) for record in records for row in record.rows)
    return found


def _killed(phase: str) -> Row:
    name = f"driver SIGKILL in {phase}, exact"
    return Row(name, partial(killed_driver, name, phase))


ROWS = (
    *map(_killed, PHASES["colocated"]),
    Row("driver SIGKILL in generate, durable", partial(killed_driver_durable, "driver SIGKILL in generate, durable")),
    Row(
        "rollout rank SIGKILL in generate, durable",
        partial(lost_rank_durable, "rollout rank SIGKILL in generate, durable"),
    ),
)
