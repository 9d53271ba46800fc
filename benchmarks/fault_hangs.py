"""Rows of `benchmarks.faults`: a call that never ends, and a rank that is stopped where nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.fault_ranks import PHASES, recovered
from benchmarks.fault_runs import WITHIN_S, Result, Row, Runs, run_name

CALL_S = 6.0  # that calls may take: longer than any of a warm process, and noticed in time
MEETING = ("trainer.collective_timeout_s=5",)


def hung_call(name: str, layout: str, fault: str, more: Sequence[str], runs: Runs) -> Result:
    """Let a call never end: at its deadline its rank is named, and the run goes on."""
    ended = runs.run(run_name(name), layout, [fault] if fault else [], more)
    found = recovered(ended, runs.undisturbed(layout))
    late = f"it was not done after {CALL_S:g} s" in str(found["told"])
    kept = sorted(file.name for file in (ended.folder / "logs").glob("*.stacks.txt"))
    return {
        **found,
        "waits": ended.line("waiting for rank"),
        "stacks": kept,
        "pass": found["pass"] and late and kept != [],
    }


def stopped_rank(name: str, layout: str, fault: str, more: Sequence[str], runs: Runs) -> Result:
    """Stop a rank: it is named, whoever else waits for it, and the run goes on."""
    ended = runs.run(run_name(name), layout, [fault], more)
    found = recovered(ended, runs.undisturbed(layout))
    named = "is stopped (SIGSTOP)" in str(found["told"]) and f" rank {fault.split(':')[2]} " in str(found["told"])
    return {**found, "pass": found["pass"] and named}


def _wedged(layout: str, how: str) -> Row:
    role = {"colocated": "actor", "disaggregated": "rollout"}[layout]
    call, rank = PHASES[layout]["generate"]
    name = f"{layout}: vLLM wedged ({how})"
    more = (f"trainer.call_timeouts_s.{role}={CALL_S:g}",)
    return Row(name, partial(hung_call, name, layout, f"{call}:2:{rank}:{how}", more))


def _sleeping(layout: str) -> Row:
    name = f"{layout}: a user's worker sleeps"
    more = (
        "plugins=[benchmarks.fault_plugin,benchmarks.fault_parts]", "reward.worker=sleepy",
        f"trainer.call_timeouts_s.reward={CALL_S:g}",
    )  # fmt: skip
    return Row(name, partial(hung_call, name, layout, "", more))


def _stopped(name: str, layout: str, rank: int, more: Sequence[str] = ()) -> Row:
    return Row(name, partial(stopped_rank, name, layout, f"actor.update_actor:6:{rank}:SIGSTOP", more))


ROWS = (
    _stopped("one rank: SIGSTOP of the only rank", "one rank", 0),
    _stopped("one rank: SIGSTOP of the only rank, collectives within 5 s", "one rank", 0, MEETING),
    _stopped("colocated: SIGSTOP of one of two, collectives within 5 s", "colocated", 1, MEETING),
    _wedged("colocated", "wedge"),
    _wedged("disaggregated", "wedge"),
    _wedged("disaggregated", "deadlock"),
    _sleeping("colocated"),
    _sleeping("disaggregated"),
)
assert CALL_S < WITHIN_S
