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
ENTROPY_RISEN = 2.0  # times what it was, with no better reward for it
ENTROPY_MORE = 0.5  # nats a token, and so much more: of each token e^0.5 = 1.6 times as many choices
GREEDY_GROUPS = 0.3  # share of unequal groups, where independent samples would differ in nearly all of them
ANSWER_ENTROPY = 0.5  # nats a whole answer: more than half of the samples of a prompt, e^-0.5, are the same one
DIFFICULT = (0.05, 0.9)  # of the way from the worst reward to the best: groups of independent samples then differ
LENGTH_LEFT = 0.5  # of what it was
LENGTH_GONE = 0.1  # of what it was: also where rewards are better for it, which answers that become concise may be
EMPTY = 2.0  # tokens: an answer of fewer is its end and nothing else
LENGTH_GROWN = 2.0  # times what it was
LENGTH_AT_LIMIT = 1.25  # times what it was, where the limit lets answers grow no further
CUT_OFF_MORE = 0.4  # of the answers, than before: then it is the limit that they have come to
CUT_OFF_BEFORE = 0.2  # of the answers: where more were, shorter ones are what should be learned
TRUNCATED = 0.3  # of the answers: what is learned of length is then mostly the limit
FALLING = 0.8  # of the share three steps before: a model that learns to end its answers needs no alarm


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
    # A term of the loss that asks for less entropy is the cause before it has done all of its work.
    given = 1 / ENTROPY_RISEN if "actor/entropy_loss" in window.names else ENTROPY_GIVEN
    for_nothing = now <= given * begin and is_better(window) is False
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


@alarm_rules.register("entropy_explosion")
def entropy_explosion(window: MetricWindow) -> Finding | None:
    """See a policy that comes to say anything: its entropy has doubled, and rewards are no better for it.

    Where the loss has a term that pays for entropy, that is the cause. Where it has none a policy has lost what it had
    learned; what broke it may be seen a little later than that, and is told instead.
    """
    begin = median_of_first(window, "actor/entropy")
    paid = "actor/entropy_loss" in window.names
    steps = window.newest_with(MIN_ROWS, NOW if paid else 2 * STEPS)
    now = None if steps is None else window.median("actor/entropy", steps)
    if begin is None or steps is None or now is None or is_better(window):
        return None
    if now < ENTROPY_RISEN * begin or now - begin < ENTROPY_MORE:
        return None
    seen = f"actor/entropy {now:.3g} nats a token, at the begin {begin:.3g}"
    if paid:
        return Finding(
            steps,
            f"{seen}, which actor/entropy_loss is part of the loss for",
            "The bonus for entropy outweighs the reward: the policy is paid for saying anything, up to chance.",
            "Lower algorithm.policy_loss.entropy_coef, often to 0; go on from a checkpoint before it rose.",
        )
    return Finding(
        steps,
        seen,
        "The policy comes to say anything: what it had learned is lost, as its steps are too large, or it learns from "
        "rewards or rows that say nothing of its answers.",
        "Lower actor.optimizer.lr, hold it at its reference (algorithm.policy_loss.kl_coef), grade some rows of "
        "rollouts/ by hand; go on from a checkpoint before it rose.",
    )


@alarm_rules.register("greedy_sampling")
def greedy_sampling(window: MetricWindow) -> Finding | None:
    """See samples of a prompt that are alike from the first steps on, though the model answers many prompts wrong.

    A model that has been trained before may have as little entropy; its samples differ where it is not sure.
    """
    begin = median_of_first(window, "actor/entropy")
    now = window.median("actor/entropy", NOW)
    alike = _answers_alike(window)
    if begin is None or now is None or alike is None or max(begin, now) > ENTROPY_LOW:
        return None
    worst, mean, best = (window.first_median(f"reward/{name}", NOW) for name in ("min", "mean", "max"))
    if worst is None or mean is None or best is None or window.first_with(MIN_ROWS, NOW) != NOW:
        return None
    if not worst < best or not DIFFICULT[0] <= (mean - worst) / (best - worst) <= DIFFICULT[1]:
        return None
    return Finding(
        NOW,
        f"actor/entropy {begin:.3g} nats a token in the first step, {alike}",
        "Sampling gives nearly always the same answer to a prompt, from the first step on: its temperature is too low, "
        "or top_k or top_p leave it no choice.",
        "Sample at rollout.temperature=1 with all tokens (rollout.top_p=1, rollout.top_k=-1).",
    )


def _answers_alike(window: MetricWindow) -> str | None:
    """Say by what it is known that samples of a prompt were alike at the begin; None if they were not."""
    groups = window.first_median("rollout/unequal_groups", NOW)
    if groups is not None:
        return f"rollout/unequal_groups {groups:.0%}" if groups <= GREEDY_GROUPS else None
    begin, length = (median_of_first(window, name) for name in ("actor/entropy", "response_length/mean"))
    if begin is None or length is None or begin * length > ANSWER_ENTROPY:
        return None
    return f"{begin * length:.2g} nats in an answer of {length:.0f} tokens"


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
