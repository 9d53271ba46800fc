"""Rows of `benchmarks.faults`: a rank is killed, is stopped or raises, in any phase of a step."""

from __future__ import annotations

from functools import partial

from benchmarks.fault_runs import WITHIN_S, Ended, Result, Row, Runs, compared, is_whole, run_name, seconds_between

# By layout and phase: the call in whose third making the fault happens, and on which rank.
PHASES = {
    "colocated": {
        "generate": ("actor.generate_sequences", 1),
        "score": ("actor.compute_log_prob", 1),
        "grade": ("reward.compute_reward", 1),
        "update": ("actor.update_actor", 1),
        "weight sync": ("actor.sync_weights", 1),
    },
    "disaggregated": {
        "generate": ("rollout.generate_sequences", 0),
        "score": ("actor.compute_log_prob", 1),
        "grade": ("reward.compute_reward", 1),
        "update": ("actor.update_actor", 1),
        "weight sync": ("rollout.receive_weights", 0),
    },
}


def recovered(ended: Ended, undisturbed: Ended) -> Result:
    """Judge a run that had to go on after one failure, soon, and to make what it would have made."""
    told = ended.first("that it goes on after:")
    found = compared(ended, undisturbed)
    detect_s = seconds_between(ended.happened(), told)
    failures = sum("that it goes on after:" in line for _, line in ended.lines)
    soon = detect_s is not None and detect_s <= WITHIN_S
    return {
        "pass": soon and failures == 1 and ended.status == 0 and is_whole(found),
        "failures": failures,
        "detect_s": detect_s,
        "recover_s": seconds_between(told, ended.first("went on with step")),
        "status": ended.status,
        **found,
        "told": ended.line("goes on after") or ended.last,
        "where": ended.line("new processes"),
    }


def lost_rank(name: str, layout: str, fault: str, runs: Runs) -> Result:
    """Lose a rank: it is named, and the run goes on."""
    found = recovered(runs.run(run_name(name), layout, [fault]), runs.undisturbed(layout))
    return {**found, "pass": found["pass"] and f" rank {fault.split(':')[2]} " in str(found["told"])}


def raising_rank(name: str, layout: str, fault: str, runs: Runs) -> Result:
    """Raise an exception on a rank: the run ends with its cause."""
    ended = runs.run(run_name(name), layout, [fault])
    detect_s = seconds_between(ended.happened(), ended.first("ZeroDivisionError: a fault that a benchmark asked for"))
    return {
        "pass": detect_s is not None and detect_s <= WITHIN_S and ended.status == 1,
        "detect_s": detect_s,
        "status": ended.status,
        "told": ended.last,
    }


def _lost(layout: str, phase: str, how: str) -> Row:
    call, rank = PHASES[layout][phase]
    name = f"{layout}: {how} in {phase}"
    return Row(name, partial(lost_rank, name, layout, f"{call}:2:{rank}:{how}"))


def _raising(layout: str, phase: str) -> Row:
    call, rank = PHASES[layout][phase]
    name = f"{layout}: raise in {phase}"
    return Row(name, partial(raising_rank, name, layout, f"{call}:2:{rank}:raise"))


ROWS = (
    *(_lost(layout, phase, "SIGKILL") for layout, phases in PHASES.items() for phase in phases),
    _lost("colocated", "update", "SIGSTOP"),
    _lost("disaggregated", "generate", "SIGSTOP"),
    *(_raising(layout, phase) for layout in PHASES for phase in ("generate", "grade", "update")),
)
