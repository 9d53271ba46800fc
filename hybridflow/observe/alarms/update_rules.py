"""Rules of alarms about updates: numbers that are not finite, steps that are too large, steps that change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow
from hybridflow.observe.alarms.reward_rules import MIN_ROWS, is_better

STEPS = 5  # whose every one, or most, must show it
NOW = 3  # newest steps, that say what it is
KL_FAR = 2.0  # nats a token from the reference: e² = 7 times as likely in the mean, and usually less than 0.5
KL_BROKEN = 0.5  # nats a token that a single step moves it by: nothing of what it had learned is sure to be left
KL_UPDATE = 0.15  # nats a token that one step moves the policy by: where clipping holds it, it is below a fifth of that
PAID = 10  # steps in which a policy that gets better for it may be far: what pays for the way shows itself meanwhile
LOST = 0.1  # of the reward above the worst: with less, what the policy could is gone
ERRORS = 3.0  # standard errors of the mean, by which there was a reward to lose
FALLS = 0.5  # of what is left of it, in each of the steps after: what a grader that breaks takes is gone at once
JUMP = 1.5  # times, up or down, from one step to the next: what is learned changes less
STILL = 1e-12  # nats a token: less than float32 can see of a policy that moves
GRADIENT_FAR = 1e3  # a norm, before clipping to 1 or so: what is well stays below 30
LARGE_REWARD = 100.0  # the size of rewards or advantages that explains such gradients
MAX_NAMED = 4  # metrics
NO_NUMBERS_OF_LEARNING = ("timing_s/", "perf/", "refit/")

# What is computed first in a step comes first: a number that is not finite makes those after it so.
BROKEN_FIRST = (
    (
        ("reward/", "cost/", "environment/"),
        "A reward or a cost is not finite, before anything was learned from it: the grader, the reward model or the "
        "environment gives it.",
        "Grade some rows of rollouts/ by hand, look for a division by 0 or the logarithm of it in the grader, and at "
        "the weights of several graders.",
    ),
    (
        ("rollout", "actor/rollout_log_prob", "actor/entropy", "actor/kl", "actor/ratio", "actor/approx_kl"),
        "The policy's own log-probs are not finite, rewards are: its weights have been broken by an update before, or "
        "the number format is too narrow for its logits.",
        "Go on from the checkpoint before with a lower actor.optimizer.lr, or with actor.model.dtype=float32.",
    ),
    (
        ("critic/value", "critic/vf_", "cost_critic/value", "cost_critic/vf_", "critic/advantages", "critic/returns",
         "critic/cost_returns"),
        "Values or advantages are not finite, rewards and the policy are: the critic is broken, or an estimator of "
        "yours divides by 0.",
        "Lower critic.optimizer.lr, look at what the estimator does with groups or rows that are alike; go on from the "
        "checkpoint before.",
    ),
    (
        ("/pg_loss", "_loss", "/loss", "/nll", "/margin", "rollout_correction/"),
        "The loss is not finite, what it is made of is: a loss of yours divides by 0 or takes the logarithm of it.",
        "Look at your own loss at the rows in nonfinite/; go on from the checkpoint before.",
    ),
    (
        ("/grad_norm", "/nonfinite_updates", "/skipped_steps"),
        "A gradient is not finite though its loss is: steps are too large, the number format is too narrow, or a loss "
        "of yours has an infinite slope, as the root has at 0.",
        "Lower the learning rate of that role, train in float32 or clip what its loss exponentiates, look at the rows "
        "in nonfinite/; go on from the checkpoint before.",
    ),
)  # fmt: skip


@alarm_rules.register("non_finite")
def non_finite(window: MetricWindow) -> Finding | None:
    """See a metric, or a gradient, that is not finite: in one step, since it does not heal by itself.

    What of it was computed first says where it comes from.
    """
    updates = [name for name in window.names if name.endswith("/nonfinite_updates") and (window.now(name) or 0.0) > 0]
    learned = [name for name in window.names if not name.startswith(NO_NUMBERS_OF_LEARNING)]
    broken = [*(name for name in learned if math.isnan(window.now(name) or 0.0)), *updates]
    if not broken:
        return None
    broken.sort(key=_place)
    seen = [f"not finite: {', '.join(broken[:MAX_NAMED])}"]
    if len(broken) > MAX_NAMED:
        seen.append(f"{len(broken) - MAX_NAMED} more")
    place = _place(broken[0])
    if place == len(BROKEN_FIRST):
        cause, advice = (
            f"{broken[0]} is not finite; what is learned from is, as far as it is measured.",
            "Look at what measures it: a metric, a worker or an environment of yours.",
        )
    else:
        _, cause, advice = BROKEN_FIRST[place]
    return Finding(1, " and ".join(seen), cause, advice)


def _place(name: str) -> int:
    """Return how early in a step a metric is computed, as the place in `BROKEN_FIRST`; its length: nobody knows."""
    for place, (parts, *_) in enumerate(BROKEN_FIRST):
        if any(name.endswith(part) if part.startswith(("/", "_")) else name.startswith(part) for part in parts):
            return place
    return len(BROKEN_FIRST)


@alarm_rules.register("kl_blow_up")
def kl_blow_up(window: MetricWindow) -> Finding | None:
    """See a policy that is far from its reference, or that a single step moves far.

    Where nothing measures either (no reference, one update a step), what it could is gone from one step to the next.
    """
    seen = []
    # A policy whose rewards get better as it goes far, or whose entropy does, may be paid for it: if so, by something
    # odd, that is seen before.
    paid = is_better(window) or "actor/entropy_loss" in window.names
    steps = window.newest_with(MIN_ROWS, PAID if paid else NOW)
    for name, bound in (("actor/kl", KL_FAR), ("actor/kl_loss", KL_FAR), ("actor/approx_kl", KL_UPDATE)):
        values = None if steps is None else window.newest(name, steps)
        size = 0.0 if values is None else _mostly(values) if bound == KL_FAR else median(map(abs, values))
        if size >= bound:
            seen.append(f"{name} {size:.3g} nats a token")
    moved = abs(window.now("actor/approx_kl") or 0.0)
    if not seen and moved >= KL_BROKEN and window.newest_with(MIN_ROWS, 1) == 1:
        return _runs_away(1, f"actor/approx_kl {moved:.3g} nats a token in one step")
    if not seen and (thrown := _thrown_off(window)):
        return _runs_away(*thrown)
    return _runs_away(steps or NOW, ", ".join(seen)) if seen else None


def _mostly(values: Sequence[float]) -> float:
    """Return the size that three quarters of values have: a mean of the KL's estimates may be that of one token."""
    return sorted(map(abs, values))[len(values) // 4]


def _thrown_off(window: MetricWindow) -> tuple[int, str] | None:
    """Say in which steps, and by what, a policy is known that updates threw out of what it had learned.

    A grader that breaks leaves answers as they were, and what is learned step by step changes them little at a time.
    """
    for since in range(2, STEPS + 1):
        seen = _lost_since(window, since)
        if seen:
            return 1 + since, seen
    return None


def _lost_since(window: MetricWindow, since: int) -> str | None:
    """Say what has become of answers in so many steps in which nearly all reward was gone; None if it was not."""
    known = window.together(("reward/mean", "reward/min", "reward/std", "rollout/rows"), 1 + since)
    if known is None:
        return None
    rewards, worst, spreads, rows = zip(*known, strict=True)
    before, *after = (reward - min(worst) for reward in rewards)
    if min(rows[0], sum(rows[1:])) < MIN_ROWS or after[-1] > LOST * before:
        return None
    if before <= ERRORS * spreads[0] / math.sqrt(rows[0]):  # a few that were right by chance
        return None
    if since == NOW and all(0 < later <= FALLS * was for was, later in pairwise((before, *after))):
        return f"reward/mean {', '.join(f'{reward:.3g}' for reward in rewards)} from step to step"
    if max(after) > LOST * before:
        return None
    for name in ("response_length/mean", "actor/entropy"):
        was, *now = window.newest(name, 1 + since) or [0.0, 0.0]
        if was > 0 and not any(was / JUMP < value < was * JUMP for value in now[-2:]):
            seen = f"{name} {now[-1]:.3g} and reward/mean {rewards[-1]:.3g}"
            return f"{seen}; {since} steps before {was:.3g} and {rewards[0]:.3g}"
    return None


def _runs_away(steps: int, seen: str) -> Finding:
    return Finding(
        steps,
        seen,
        "The policy runs away from where it was: its steps are too large, or too little holds it at its reference.",
        "Lower actor.optimizer.lr, take fewer epochs or minibatches a step, raise algorithm.reward_kl_coef or "
        "algorithm.policy_loss.kl_coef; go on from a checkpoint before that.",
    )


@alarm_rules.register("frozen_weights")
def frozen_weights(window: MetricWindow) -> Finding | None:
    """See updates that change nothing, though there is something to learn from."""
    rates = [name for name in window.names if name.endswith("/lr")]
    for name in rates:
        if not any(window.newest(name, STEPS) or [1.0]):
            advice = f"Set {name.removesuffix('/lr')}.optimizer.lr, look at its warm-up and decay."
            return _frozen(
                f"{name} is 0", "The learning rate is 0, so every step is taken and nothing is learned.", advice
            )
    if not any(window.newest("rollout/kept_rows", STEPS) or [1.0]):
        return _frozen(
            "rollout/kept_rows is 0",
            "No row is left to learn from: a filter leaves all out, their grades fail, or loss_mask leaves no token.",
            "Look at algorithm.rollout_filter, at reward/failed_share and at what masks tokens.",
        )
    advantages = window.together(("critic/advantages_min", "critic/advantages_max"), STEPS)
    if advantages is not None and not all(map(any, advantages)):
        return None
    if advantages is not None and not any(window.newest("actor/grad_norm", STEPS) or [1.0]):
        return _frozen(
            "actor/grad_norm is 0 while advantages are not",
            "No gradient reaches the weights: they are frozen, the loss does not depend on them, or all tokens are "
            "clipped or masked.",
            "Look at what a loss or a worker of yours detaches or freezes, and at actor/clip_fraction.",
        )
    moved = _moved(window)
    if moved and max(moved.values()) <= STILL and any(window.newest("actor/grad_norm", STEPS) or [0.0]):
        return _frozen(
            f"{' and '.join(moved)} {'are' if len(moved) > 1 else 'is'} 0 while actor/grad_norm is not",
            "Updates do not change the policy: the optimizer does not take its steps or not on these weights, or they "
            "are too small for the number format.",
            "Look at what a worker or an optimizer of yours does with the step, raise actor.optimizer.lr, keep master "
            "weights in float32.",
        )
    return None


def _moved(window: MetricWindow) -> dict[str, float]:
    """Return by name how far the policy has moved at most, in a step of several updates or from its reference."""
    updates = window.newest("actor/updates", STEPS) or [0.0]
    names = ["actor/approx_kl"] if min(updates) > 1 else []
    # Of the first step's own update the reference knows nothing yet.
    names += ["actor/kl", "actor/kl_loss"] if len(window.steps) > STEPS else []
    known = {name: window.newest(name, STEPS) for name in names}
    return {name: max(map(abs, values)) for name, values in known.items() if values is not None}


def _frozen(seen: str, cause: str, advice: str) -> Finding:
    return Finding(STEPS, f"{seen} in {STEPS} steps", cause, advice)


@alarm_rules.register("exploding_gradients")
def exploding_gradients(window: MetricWindow) -> Finding | None:
    """See gradients that are clipped by orders of magnitude in step after step."""
    norms = {name: window.newest(name, STEPS) for name in window.names if name.endswith("/grad_norm")}
    sizes = {name: _mostly(values) for name, values in norms.items() if values is not None}
    name = max(sizes, key=lambda name: sizes[name], default="")
    if not name or sizes[name] < GRADIENT_FAR:
        return None
    role = name.removesuffix("/grad_norm")
    large = {
        name: _size(window, name) for name in ("reward", "critic/advantages") if _size(window, name) >= LARGE_REWARD
    }
    if large:
        sizes_told = " and ".join(f"{what} up to {size:.3g}" for what, size in large.items())
        return Finding(
            STEPS,
            f"{name} {sizes[name]:.3g} or more, {sizes_told}",
            "Rewards are so large that what is learned is the clipped direction of their gradient: neither the KL nor "
            "entropy weigh anything beside it, and a critic cannot come to such values.",
            "Have the grader give rewards of about 1 in size, or normalize advantages.",
        )
    return Finding(
        STEPS,
        f"{name} {sizes[name]:.3g} or more",
        f"The gradients of {role} explode, and clipping leaves little but their direction: its steps are too large, or "
        "its loss gives single tokens an enormous weight.",
        f"Lower {role}.optimizer.lr, look at ratios, weights and coefficients of its loss; go on from a checkpoint "
        "before.",
    )


def _size(window: MetricWindow, name: str) -> float:
    """Return how large rewards or advantages are, by their two ends."""
    ends = [f"{name}/min", f"{name}/max"] if name == "reward" else [f"{name}_min", f"{name}_max"]
    return max(abs(window.median(end, STEPS) or 0.0) for end in ends)
