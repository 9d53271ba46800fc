"""Rules of alarms about the rewards that a run learns from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import takewhile
from statistics import mean, median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow

STEPS = 5  # whose median must show it: with fewer, small batches do by chance
NOW = 3  # newest steps, or those before something
MIN_ROWS = 64  # as many rows say what a policy is
MIN_GROUPED_ROWS = 128  # whose grades are alike: 8 prompts at least, where one has 16 samples or fewer
CHANCE = 1e-4  # of as many steps as alike as these, if they are so as often as before: a run has thousands
ALIKE = 1e-9  # of the size of a reward, that two may differ by and be the same one in float32 sums
FALLEN = 0.5  # of what rewards were above the worst: with less, learning has done harm
FALLING_STEPS = 15  # in nearly all of which they are so, where something else may be the cause and be seen by then
MIN_FALLEN_ROWS = 256  # at either end: the mean of fewer is off by chance
ROWS_A_PROMPT = 8  # that count as one: samples of a prompt are right together
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
    found = _seen(window, MIN_GROUPED_ROWS, _one_reward)
    if found is None or _has_faded(window, found[0]):
        return None
    return Finding(
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
    return None if _is_chance(window, steps) else (steps, seen)


def _is_chance(window: MetricWindow, steps: int) -> bool:
    """Tell whether so many steps of one reward, or more, are none too many for a run that had such steps before.

    Of a few rows none may be right in every second step; then as many such steps in a row happen by chance.
    """
    ends = window.together(("reward/min", "reward/max"), len(window.steps)) or []
    alike = [low == high for low, high in ends]
    newest = len([*takewhile(bool, reversed(alike))])
    before = alike[: len(alike) - newest]
    often = sum(before) / len(before) if before else 0.0
    return bool(often ** max(newest, steps) > CHANCE)


def _has_faded(window: MetricWindow, steps: int) -> bool:
    """Tell whether rewards had fallen step by step before they came to be one: what breaks at once is the grader."""
    means = window.all_newest("reward/mean")[: -steps or None]
    begin = median_of_first(window, "reward/mean")
    worst = window.median("reward/min", STEPS)
    if begin is None or worst is None or len(means) < NOW:
        return False
    before = [mean - worst for mean in means[-NOW:]]
    return 0 < median(before) <= FALLEN * (begin - worst)


def _one_reward(window: MetricWindow, steps: int) -> str | None:
    """Say which reward all rows of each of the newest steps have; None if they differ within one."""
    ends = window.together(("reward/min", "reward/max"), steps)
    if ends is None or any(high - low > ALIKE * max(abs(high), 1.0) for low, high in ends):
        return None
    lowest, highest = zip(*ends, strict=True)
    changes = max(highest) - min(lowest) > ALIKE * max(abs(max(highest)), 1.0)
    return f"reward/min and reward/max are {highest[-1]:g}{', one number in every step before' if changes else ''}"


def _is_cut_off(window: MetricWindow) -> bool:
    """Tell whether nearly no answer ends before the limit: `truncation` says so."""
    return (window.median("rollout/truncated_fraction", NOW) or 0.0) >= ALL_CUT_OFF


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
    means = window.all_newest("reward/mean")
    if worst is None or highest is None or best is None or begin is None:
        return False
    if not worst < highest <= best or begin >= worst + SOLVED * (best - worst):
        return False
    parts = [(mean - worst) / (best - worst) for mean in means]
    solved = len([*takewhile(lambda part: part >= SOLVED, reversed(parts))])
    before = parts[-solved - NOW : -solved] if solved else []
    return solved >= NOW and (not before or median(before) >= LEARNED)


@alarm_rules.register("falling_reward")
def falling_reward(window: MetricWindow) -> Finding | None:
    """See rewards that have fallen below half of what they were, and stay there, while nothing else is seen."""
    # Where the loss has a term for entropy, that may be what outweighs them, and is seen later.
    steps = window.newest_with(MIN_FALLEN_ROWS, FALLING_STEPS if "actor/entropy_loss" in window.names else STEPS)
    first = window.first_with(MIN_FALLEN_ROWS, STEPS)
    if steps is None or first is None:
        return None
    rewards, begins = window.newest("reward/mean", steps), window.first("reward/mean", first)
    spreads, lowest = window.first("reward/std", first), window.first("reward/min", first)
    rows = sum(window.first("rollout/rows", first) or [0.0])
    if rewards is None or begins is None or spreads is None or lowest is None or not rows:
        return None
    begin, worst = mean(begins), min(*lowest, *rewards)
    # The mean of the first rows is off by chance, but not by three of its standard errors.
    least = begin - 3 * mean(spreads) * math.sqrt(ROWS_A_PROMPT / rows)
    most = sorted(rewards)[-1 - len(rewards) // 10]
    if not begin > worst or most - worst > FALLEN * (begin - worst) or most > least:
        return None
    return Finding(
        steps,
        f"reward/mean {median(rewards):.3g}, at the begin {begin:.3g}",
        "Learning makes answers worse: the sign of a reward, an advantage or a loss is the wrong way round, another "
        "term of the loss outweighs the reward, or prompts have become harder.",
        "Look at the sign of what a grader, an estimator or a loss of yours gives for a good answer, take terms of the "
        "loss away one by one, lower actor.optimizer.lr.",
    )


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
