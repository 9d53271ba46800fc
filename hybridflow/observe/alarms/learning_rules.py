"""Rules of alarms about what becomes of a policy.

Medians of a few steps are compared, so that a single step that is out of the way raises nothing. What a policy was is
what it was in the first step, which is measured before it has learned anything: one that is broken is so at once. Where
steps have few rows, as many of them are taken as have enough together.
"""

from __future__ import annotations

import math
from statistics import median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow
from hybridflow.observe.alarms.reward_rules import (
    MIN_ROWS,
    is_better,
    is_solved,
    median_of_first,
    median_of_newest,
    newest_steps,
)

STEPS = 5  # whose median must show it: with fewer, small batches do by chance
NOW = 3  # newest steps, whose median says what it is
ENTROPY_LEFT = 0.1  # of what it was: a policy that has learned its task well keeps more
ENTROPY_LOW = 0.1  # nats a token: above it a policy still tries things, whatever it was before
ENTROPY_NONE = 0.03  # nats a token: samples of a prompt are nearly always the same one
ENTROPY_GIVEN = 0.25  # of what it was, with no better reward for it: what was given up bought nothing
LENGTH_LEFT = 0.5  # of what it was
LENGTH_GONE = 0.1  # of what it was: also where rewards are better for it, which answers that become concise may be
EMPTY = 2.0  # tokens: an answer of fewer is its end and nothing else
LENGTH_GROWN = 2.0  # times what it was
LENGTH_AT_LIMIT = 1.25  # times what it was, where the limit lets answers grow no further
CUT_OFF_MORE = 0.4  # of the answers, than before: then it is the limit that they have come to
CUT_OFF_BEFORE = 0.2  # of the answers: where more were, shorter ones are what should be learned
KL_FAR = 2.0  # nats a token from the reference: e² = 7 times as likely in the mean, and usually less than 0.5
KL_BROKEN = 0.5  # nats a token that a single step moves it by: nothing of what it had learned is sure to be left
KL_UPDATE = 0.15  # nats a token that one step moves the policy by: where clipping holds it, it is below a fifth of that
LOST = 0.1  # of the reward above the worst: with less, what the policy could is gone
JUMP = 1.5  # times, up or down, from one step to the next: what is learned changes less
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


@alarm_rules.register("entropy_collapse")
def entropy_collapse(window: MetricWindow) -> Finding | None:
    """See a policy that has stopped trying: its entropy is gone, or has fallen to a small part of what it was.

    A smaller fall is one too where rewards are no better for it. A policy that has solved its task need try no more.
    """
    now = median_of_newest(window, "actor/entropy")
    begin = median_of_first(window, "actor/entropy")
    if now is None or begin is None:
        return None
    fallen = now <= ENTROPY_LOW and now <= ENTROPY_LEFT * begin
    for_nothing = now <= ENTROPY_GIVEN * begin and is_better(window) is False
    never = max(window.newest("actor/entropy", STEPS) or [math.inf]) <= ENTROPY_NONE
    if not (fallen or for_nothing or never) or is_solved(window):
        return None
    return Finding(
        newest_steps(window) or NOW if fallen or for_nothing else STEPS,
        f"actor/entropy {now:.3g} nats a token, at the begin {begin:.3g}",
        "The policy gives nearly the same answer whatever is drawn, and no longer finds better ones: it learns too "
        "fast, samples at too low a temperature, or nothing keeps its entropy up.",
        "Lower actor.optimizer.lr, sample at rollout.temperature=1, raise algorithm.policy_loss.entropy_coef, "
        "clip_high of algorithm.policy_loss.options or the KL's coefficient; go on from a checkpoint before it fell.",
    )


@alarm_rules.register("length_collapse")
def length_collapse(window: MetricWindow) -> Finding | None:
    """See answers that have become much shorter, though few had been cut off.

    Those that become concise and better are learned, until hardly anything is left of them.
    """
    now, begin = _lengths(window)
    cut_off = median_of_first(window, "rollout/truncated_fraction") or 0.0
    if now is None or begin is None or now > LENGTH_LEFT * begin or cut_off >= CUT_OFF_BEFORE:
        return None
    if is_better(window) and now > LENGTH_GONE * begin and now >= EMPTY:
        return None
    return Finding(
        newest_steps(window) or NOW,
        f"response_length/mean {now:.1f} tokens, at the begin {begin:.1f}",
        "Answers have become much shorter: the reward is as good or better for short ones, or the policy has lost its "
        "way and ends at once.",
        "Read rollouts/ of these steps, look at what the grader and algorithm.reward_shaping give for short answers, "
        "lower actor.optimizer.lr.",
    )


@alarm_rules.register("length_explosion")
def length_explosion(window: MetricWindow) -> Finding | None:
    """See answers that have become much longer while more are cut off, or with no better reward to show for it.

    Those that were more than half as long as the limit come to it before they have doubled.
    """
    now, begin = _lengths(window)
    if now is None or begin is None or not begin > 0:
        return None
    cut_now = median_of_newest(window, "rollout/truncated_fraction") or 0.0
    cut_more = cut_now - (median_of_first(window, "rollout/truncated_fraction") or 0.0)
    grown = now >= LENGTH_GROWN * begin and (not is_better(window) or cut_more >= CUT_OFF_BEFORE)
    if not grown and not (now >= LENGTH_AT_LIMIT * begin and cut_more >= CUT_OFF_MORE):
        return None
    return Finding(
        newest_steps(window) or NOW,
        f"response_length/mean {now:.1f} tokens, at the begin {begin:.1f}; {cut_now:.0%} are cut off",
        "Answers have become much longer and no better for it: the reward is better for long ones, or the policy no "
        "longer ends them.",
        "Read rollouts/ of these steps, look at what the grader gives for long answers, punish length "
        "(algorithm.reward_shaping.name=overlong), average the loss over tokens (algorithm.policy_loss.aggregate).",
    )


def _lengths(window: MetricWindow) -> tuple[float | None, float | None]:
    """Return the length of answers now and at the begin."""
    return median_of_newest(window, "response_length/mean"), median_of_first(window, "response_length/mean")


@alarm_rules.register("kl_blow_up")
def kl_blow_up(window: MetricWindow) -> Finding | None:
    """See a policy that is far from its reference, or that a single step moves far.

    Where nothing measures either (no reference, one update a step), what it could is gone from one step to the next.
    """
    seen = []
    steps = newest_steps(window)  # of few rows a mean may be far off: of the KL's estimates some are very large
    for name, bound in (("actor/kl", KL_FAR), ("actor/kl_loss", KL_FAR), ("actor/approx_kl", KL_UPDATE)):
        values = None if steps is None else window.newest(name, steps)
        size = 0.0 if values is None else median(map(abs, values))
        if size >= bound:
            seen.append(f"{name} {size:.3g} nats a token")
    moved = abs(window.now("actor/approx_kl") or 0.0)
    if not seen and moved >= KL_BROKEN and window.newest_with(MIN_ROWS, 1) == 1:
        return _runs_away(1, f"actor/approx_kl {moved:.3g} nats a token in one step")
    if not seen and (thrown := _thrown_off(window)):
        return _runs_away(1 + NOW, thrown)
    return _runs_away(steps or NOW, ", ".join(seen)) if seen else None


def _thrown_off(window: MetricWindow) -> str | None:
    """Say by what a policy is known that one update threw out of what it had learned; None if none did.

    A grader that breaks leaves answers as they were, and what is learned step by step changes them little at a time.
    """
    steps = 1 + NOW  # the one before it, and those since
    rewards = window.newest("reward/mean", steps)
    worst = window.newest("reward/min", steps)
    rows = window.newest("rollout/rows", steps)
    if rewards is None or worst is None or rows is None or min(rows) < MIN_ROWS:
        return None
    before, *since = (reward - min(worst) for reward in rewards)
    if before <= 0 or max(since) > LOST * before:
        return None
    for name in ("response_length/mean", "actor/entropy"):
        was, *now = window.newest(name, steps) or [0.0, 0.0]
        if was > 0 and not was / JUMP < median(now) < was * JUMP:
            seen = f"{name} {median(now):.3g} and reward/mean {rewards[-1]:.3g}"
            return f"{seen}; one step before {was:.3g} and {rewards[0]:.3g}"
    return None


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
    steps = window.newest_with(MIN_ROWS, STEPS)
    shares = None if steps is None else window.newest("rollout/truncated_fraction", steps)
    if shares is None or median(shares) < TRUNCATED or sum(shares[-2:]) <= FALLING * sum(shares[:2]):
        return None
    return Finding(
        len(shares),
        f"rollout/truncated_fraction {median(shares):.0%}",
        "Answers are cut off at the limit before they end, so they are graded by what is missing.",
        "Raise rollout.max_response_tokens, ask for shorter answers, or leave such rows out "
        "(algorithm.rollout_filter.name=overlong).",
    )
