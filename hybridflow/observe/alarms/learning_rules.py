"""Rules of alarms about what a run learns from, and what becomes of its policy.

Medians of a few steps are compared, so that a single step that is out of the way raises nothing. What a policy was is
what it was in the first step, which is measured before it has learned anything: one that is broken is so at once.
"""

from __future__ import annotations

import math
from statistics import median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow

STEPS = 5  # whose median must show it: with fewer, small batches do by chance
BEGIN = 1  # first steps, which say what the policy was: an update that is too large breaks it before the second
NOW = 3  # newest steps, whose median says what it is
MIN_ROWS = 64  # within STEPS: as many grades that are alike are no chance, unless hardly one answer in 64 is right
ALIKE = 1e-9  # of the size of a reward, that two may differ by and be the same one in float32 sums
FAILED = 0.2  # share of the grades: every fifth row is lost
UNEQUAL_GROUPS = 0.02  # share of the groups: of 50 prompts one teaches something
KEPT_GROUPS = 0.05  # of those drawn: 20 are sampled for each that is learned from
ENTROPY_LEFT = 0.1  # of what it was: a policy that has learned its task well keeps more
ENTROPY_LOW = 0.1  # nats a token: above it a policy still tries things, whatever it was before
ENTROPY_NONE = 0.03  # nats a token: samples of a prompt are nearly always the same one
LENGTH_LEFT = 0.5  # of what it was: answers that become concise lose less
LENGTH_GROWN = 2.0  # times what it was
CUT_OFF_BEFORE = 0.2  # of the answers: where more were, shorter ones are what should be learned
KL_FAR = 2.0  # nats a token from the reference: e² = 7 times as likely in the mean, and usually less than 0.5
KL_BROKEN = 0.5  # nats a token that a single step moves it by: nothing of what it had learned is sure to be left
KL_UPDATE = 0.15  # nats a token that one step moves the policy by: where clipping holds it, it is below a fifth of that
TRUNCATED = 0.3  # of the answers: what is learned of length is then mostly the limit
FALLING = 0.8  # of the share three steps before: a model that learns to end its answers needs no alarm
MAX_NAMED = 4  # metrics
NO_NUMBERS_OF_LEARNING = ("timing_s/", "perf/", "refit/")


@alarm_rules.register("non_finite")
def non_finite(window: MetricWindow) -> Finding | None:
    """See a metric, or a gradient, that is not finite: in one step, since it does not heal by itself."""
    updates = {name: window.now(name) or 0.0 for name in window.names if name.endswith("/nonfinite_updates")}
    seen = [f"{name} {count:.0f}" for name, count in updates.items() if count > 0]
    learned = [name for name in window.names if not name.startswith(NO_NUMBERS_OF_LEARNING)]
    broken = [name for name in learned if math.isnan(window.now(name) or 0.0)]
    if broken:
        more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        seen.append(f"not finite: {', '.join(broken[:MAX_NAMED])}{more}")
    if not seen:
        return None
    return Finding(
        1,
        "; ".join(seen),
        "A number of the update is NaN or infinite: the learning rate is too high, a reward or a loss of yours is not "
        "finite, or the number format is too narrow.",
        "Lower the learning rate, clip the gradient, look at rewards and at your own loss; go on from the checkpoint "
        "before.",
    )


@alarm_rules.register("dead_reward")
def dead_reward(window: MetricWindow) -> Finding | None:
    """See grades that fail, or rewards that are one number for all rows, step after step.

    Where they differed before and are all as good as the best was, the task is solved: `all_groups_alike` says so.
    """
    failed = window.median("reward/failed_share", STEPS)
    if failed is not None and failed >= FAILED:
        return Finding(
            STEPS,
            f"reward/failed_share {failed:.0%}",
            "The grader fails: it raises, takes too long, or gives no finite number.",
            "Look for its error in logs/; reward.max_failed_share=0 ends the run at the first one and shows it.",
        )
    value = _only_reward(window)
    if value is None or _is_solved(window, value):
        return None
    return Finding(
        STEPS,
        f"reward/min and reward/max are {value:g}",
        "Every answer gets the same reward, so nothing tells a good one from a bad one: the grader does not find what "
        "it looks for in these answers, or the task is far too hard for this model.",
        "Grade some rows of rollouts/ by hand, look at how the task has answers written, begin with easier prompts or "
        "a warmer start.",
    )


def _only_reward(window: MetricWindow) -> float | None:
    """Return the reward that all rows of the newest steps have; None if they differ, or are few."""
    lowest = window.newest("reward/min", STEPS)
    highest = window.newest("reward/max", STEPS)
    if lowest is None or highest is None or _few_rows(window):
        return None
    alike = max(highest) - min(lowest) <= ALIKE * max(abs(max(highest)), 1.0)
    return highest[-1] if alike else None


def _few_rows(window: MetricWindow) -> bool:
    rows = window.newest("rollout/rows", STEPS)
    return rows is not None and sum(rows) < MIN_ROWS


def _is_solved(window: MetricWindow, value: float) -> bool:
    """Tell whether rewards that are all this value once differed, and none was better."""
    lowest = window.first_median("reward/min", STEPS)
    highest = window.first_median("reward/max", STEPS)
    return lowest is not None and highest is not None and lowest < highest <= value


@alarm_rules.register("all_groups_alike")
def all_groups_alike(window: MetricWindow) -> Finding | None:
    """See that samples of a prompt get the same reward, whatever other prompts' get: no gradient."""
    seen = None if _few_rows(window) else _alike(window)
    if seen is None:
        return None
    return Finding(
        STEPS,
        seen,
        "The samples of each prompt all get the same reward, so none is better than its group and there is nothing to "
        "learn: the prompts are too easy or too hard, sampling gives one answer again and again, or the grader looks "
        "at the prompt and not at the answer.",
        "Take prompts that are sometimes answered right, raise rollout.temperature or algorithm.samples_per_prompt, "
        "or stop if the task is solved.",
    )


def _alike(window: MetricWindow) -> str | None:
    """Say by what groups are known to be alike; None if they are not, or nothing tells."""
    for name, bound in (("rollout/unequal_groups", UNEQUAL_GROUPS), ("rollout/groups_kept", KEPT_GROUPS)):
        shares = window.newest(name, STEPS)
        if shares is not None and max(shares) <= bound:  # all of them, as of a reward that is dead
            return f"{name} {median(shares):.1%}"
    highest = window.newest("critic/advantages_max", STEPS)
    lowest = window.newest("critic/advantages_min", STEPS)
    if highest is not None and lowest is not None and not any((*highest, *lowest)):
        return "critic/advantages_max and critic/advantages_min are 0"
    return None


@alarm_rules.register("entropy_collapse")
def entropy_collapse(window: MetricWindow) -> Finding | None:
    """See a policy that has stopped trying: its entropy is gone, or has fallen to a small part of what it was."""
    now = window.median("actor/entropy", NOW)
    begin = window.first_median("actor/entropy", BEGIN)
    if now is None or begin is None:
        return None
    fallen = now <= ENTROPY_LOW and now <= ENTROPY_LEFT * begin
    never = max(window.newest("actor/entropy", STEPS) or [math.inf]) <= ENTROPY_NONE
    if not fallen and not never:
        return None
    return Finding(
        NOW if fallen else STEPS,
        f"actor/entropy {now:.3g} nats a token, at the begin {begin:.3g}",
        "The policy gives nearly the same answer whatever is drawn, and no longer finds better ones: it learns too "
        "fast, samples at too low a temperature, or nothing keeps its entropy up.",
        "Lower actor.optimizer.lr, sample at rollout.temperature=1, raise algorithm.policy_loss.entropy_coef, "
        "clip_high of algorithm.policy_loss.options or the KL's coefficient; go on from a checkpoint before it fell.",
    )


@alarm_rules.register("length_collapse")
def length_collapse(window: MetricWindow) -> Finding | None:
    """See answers that have become much shorter, though few had been cut off."""
    now, begin = _lengths(window)
    cut_off = window.first_median("rollout/truncated_fraction", BEGIN) or 0.0
    if now is None or begin is None or now > LENGTH_LEFT * begin or cut_off >= CUT_OFF_BEFORE:
        return None
    return Finding(
        NOW,
        f"response_length/mean {now:.1f} tokens, at the begin {begin:.1f}",
        "Answers have become much shorter: the reward is as good or better for short ones, or the policy has lost its "
        "way and ends at once.",
        "Read rollouts/ of these steps, look at what the grader and algorithm.reward_shaping give for short answers, "
        "lower actor.optimizer.lr.",
    )


@alarm_rules.register("length_explosion")
def length_explosion(window: MetricWindow) -> Finding | None:
    """See answers that have become much longer while more are cut off, or with no better reward to show for it."""
    now, begin = _lengths(window)
    if now is None or begin is None or not 0 < LENGTH_GROWN * begin <= now:
        return None
    cut_now = window.median("rollout/truncated_fraction", NOW) or 0.0
    cut_begin = window.first_median("rollout/truncated_fraction", BEGIN) or 0.0
    reward_now = window.median("reward/mean", NOW)
    reward_begin = window.first_median("reward/mean", BEGIN)
    better = reward_now is not None and reward_begin is not None and reward_now > reward_begin
    if better and cut_now - cut_begin < CUT_OFF_BEFORE:
        return None
    return Finding(
        NOW,
        f"response_length/mean {now:.1f} tokens, at the begin {begin:.1f}; {cut_now:.0%} are cut off",
        "Answers have become much longer and no better for it: the reward is better for long ones, or the policy no "
        "longer ends them.",
        "Read rollouts/ of these steps, look at what the grader gives for long answers, punish length "
        "(algorithm.reward_shaping.name=overlong), average the loss over tokens (algorithm.policy_loss.aggregate).",
    )


def _lengths(window: MetricWindow) -> tuple[float | None, float | None]:
    """Return the length of answers now and at the begin."""
    return window.median("response_length/mean", NOW), window.first_median("response_length/mean", BEGIN)


@alarm_rules.register("kl_blow_up")
def kl_blow_up(window: MetricWindow) -> Finding | None:
    """See a policy that is far from its reference, or that a single step moves far."""
    seen = []
    for name, bound in (("actor/kl", KL_FAR), ("actor/kl_loss", KL_FAR), ("actor/approx_kl", KL_UPDATE)):
        values = window.newest(name, NOW)
        size = 0.0 if values is None else median(map(abs, values))
        if size >= bound:
            seen.append(f"{name} {size:.3g} nats a token")
    moved = abs(window.now("actor/approx_kl") or 0.0)
    if not seen and moved >= KL_BROKEN:
        return _runs_away(1, f"actor/approx_kl {moved:.3g} nats a token in one step")
    return _runs_away(NOW, ", ".join(seen)) if seen else None


def _runs_away(steps: int, seen: str) -> Finding:
    return Finding(
        steps,
        seen,
        "The policy runs away from where it was: its steps are too large, or too little holds it at its reference.",
        "Lower actor.optimizer.lr, take fewer epochs or minibatches a step, raise algorithm.reward_kl_coef or "
        "algorithm.policy_loss.kl_coef; go on from a checkpoint before that.",
    )


@alarm_rules.register("truncation")
def truncation(window: MetricWindow) -> Finding | None:
    """See that many answers are cut off, and that this is not getting better by itself."""
    shares = window.newest("rollout/truncated_fraction", STEPS)
    if shares is None or median(shares) < TRUNCATED or sum(shares[-2:]) <= FALLING * sum(shares[:2]):
        return None
    return Finding(
        STEPS,
        f"rollout/truncated_fraction {median(shares):.0%}",
        "Answers are cut off at the limit before they end, so they are graded by what is missing.",
        "Raise rollout.max_response_tokens, ask for shorter answers, or leave such rows out "
        "(algorithm.rollout_filter.name=overlong).",
    )
