"""Rules of alarms about the rewards that a run learns from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from statistics import median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow

STEPS = 5  # whose median must show it: with fewer, small batches do by chance
NOW = 3  # newest steps, or those before something
MIN_ROWS = 64  # as many grades that are alike are no chance, unless hardly one answer in 64 is right
MIN_GROUPED_ROWS = 128  # of groups that are alike: they are 8 at least, where a prompt has 16 samples or fewer
ALIKE = 1e-9  # of the size of a reward, that two may differ by and be the same one in float32 sums
FAILURES = ("reward/failed_share", "reward/baseline_failed_share", "cost/failed_share")
FAILED = 0.2  # share of the grades: every fifth row is lost
SOLVED = 0.9  # of the way from the worst reward to the best one: there is hardly anything left to learn
LEARNED = 0.5  # of that way, before it is solved: a grader that breaks gives all of it from one step to the next
ALL_CUT_OFF = 0.9  # of the answers: that none of them is right has no other cause
UNEQUAL_GROUPS = 0.02  # share of the groups: of 50 prompts one teaches something
KEPT_GROUPS = 0.05  # of those drawn: 20 are sampled for each that is learned from


@alarm_rules.register("dead_reward")
def dead_reward(window: MetricWindow) -> Finding | None:
    """See grades that fail, or rewards that are one number for all rows, step after step.

    Where they differed before and have all become as good as the best was, the task is solved.
    """
    failed = {name: share for name in FAILURES if (share := window.median(name, STEPS)) is not None}
    name = max(failed, key=lambda name: failed[name], default="")
    if name and failed[name] >= FAILED:
        return Finding(
            STEPS,
            f"{name} {failed[name]:.0%}",
            "The grader fails: it raises, takes too long, or gives no finite number.",
            "Look for its error in logs/; reward.max_failed_share=0 (of costs cost.max_failed_share=0) ends the run at "
            "the first one and shows it.",
        )
    found = _seen(window, MIN_ROWS, _one_reward)
    return found and Finding(
        *found,
        "Every answer gets the same reward, so nothing tells a good one from a bad one: the grader does not find what "
        "it looks for in these answers, or takes whatever it is given; or the task is far too hard for this model, or "
        "one that it had learned before.",
        "Grade some rows of rollouts/ by hand, look at how the task has answers written; where they are wrong begin "
        "with easier prompts or a warmer start, where they are right with harder ones.",
    )


def _seen(window: MetricWindow, rows: int, look: Callable[[MetricWindow, int], str | None]) -> tuple[int, str] | None:
    """Return over how many of the newest steps, of so many rows, something is seen, and what.

    None if nothing is, or it has another cause: answers that are cut off, or a task that is solved.
    """
    steps = window.newest_with(rows, STEPS)
    seen = None if steps is None else look(window, steps)
    if steps is None or seen is None or _is_cut_off(window) or is_solved(window):
        return None
    return steps, seen


def _one_reward(window: MetricWindow, steps: int) -> str | None:
    """Say which reward all rows of each of the newest steps have; None if they differ within one."""
    lowest = window.newest("reward/min", steps)
    highest = window.newest("reward/max", steps)
    if lowest is None or highest is None:
        return None
    if any(high - low > ALIKE * max(abs(high), 1.0) for low, high in zip(lowest, highest, strict=True)):
        return None
    changes = max(highest) - min(lowest) > ALIKE * max(abs(max(highest)), 1.0)
    return f"reward/min and reward/max are {highest[-1]:g}{', one number in every step before' if changes else ''}"


def _is_cut_off(window: MetricWindow) -> bool:
    """Tell whether nearly no answer ends before the limit: `truncation` says so."""
    return (window.median("rollout/truncated_fraction", STEPS) or 0.0) >= ALL_CUT_OFF


def is_better(window: MetricWindow) -> bool | None:
    """Tell whether rewards are better, or costs lower, than those of the first rows; None if there are no rewards."""
    begin = median_of_first(window, "reward/mean")
    now = median_of_newest(window, "reward/mean")
    if begin is None or now is None:
        return None
    cost_begin = median_of_first(window, "cost/mean")
    cost_now = median_of_newest(window, "cost/mean")
    return now > begin or (cost_begin is not None and cost_now is not None and cost_now < cost_begin)


def median_of_first(window: MetricWindow, name: str) -> float | None:
    """Return what a metric was: the first step says, or as many as have `MIN_ROWS`."""
    steps = window.first_with(MIN_ROWS, 1)
    return None if steps is None else window.first_median(name, steps)


def median_of_newest(window: MetricWindow, name: str) -> float | None:
    """Return what a metric is: the newest steps say, or as many as have `MIN_ROWS`."""
    steps = newest_steps(window)
    return None if steps is None else window.median(name, steps)


def newest_steps(window: MetricWindow) -> int | None:
    """Return how many of the newest steps say what a policy is; None: they have too few rows."""
    return window.newest_with(MIN_ROWS, NOW)


def is_solved(window: MetricWindow) -> bool:
    """Tell whether rewards that once differed are now nearly all as good as the best, and came there by learning."""
    worst = window.first_median("reward/min", STEPS)
    highest = window.first_median("reward/max", STEPS)
    best = window.median("reward/max", STEPS)
    begin = window.first_median("reward/mean", STEPS)
    means = window.newest("reward/mean", len(window.steps))
    if worst is None or highest is None or best is None or begin is None or means is None:
        return False
    if not worst < highest <= best or begin >= worst + SOLVED * (best - worst):
        return False
    parts = [(mean - worst) / (best - worst) for mean in means]
    solved = len([*takewhile(lambda part: part >= SOLVED, reversed(parts))])
    before = parts[-solved - NOW : -solved] if solved else []
    return solved >= NOW and (not before or median(before) >= LEARNED)


@alarm_rules.register("all_groups_alike")
def all_groups_alike(window: MetricWindow) -> Finding | None:
    """See that samples of a prompt get the same reward, whatever other prompts' get: no gradient.

    Where the task is solved there is nothing to learn either, and nothing wrong.
    """
    found = _seen(window, MIN_GROUPED_ROWS, _alike)
    return found and Finding(
        *found,
        "The samples of each prompt all get the same reward, so none is better than its group and there is nothing to "
        "learn: the prompts are too easy or too hard, sampling gives one answer again and again, or the grader looks "
        "at the prompt and not at the answer.",
        "Take prompts that are sometimes answered right, raise rollout.temperature or algorithm.samples_per_prompt.",
    )


def _alike(window: MetricWindow, steps: int) -> str | None:
    """Say by what groups are known to be alike; None if they are not, or nothing tells."""
    for name, bound in (("rollout/unequal_groups", UNEQUAL_GROUPS), ("rollout/groups_kept", KEPT_GROUPS)):
        shares = window.newest(name, steps)
        if shares is not None and max(shares) <= bound:  # all of them, as of a reward that is dead
            return f"{name} {median(shares):.1%}"
    highest = window.newest("critic/advantages_max", steps)
    lowest = window.newest("critic/advantages_min", steps)
    if highest is not None and lowest is not None and not any((*highest, *lowest)):
        return "critic/advantages_max and critic/advantages_min are 0"
    return None
