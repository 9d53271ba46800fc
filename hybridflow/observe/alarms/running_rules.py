"""Rules of alarms about how a run is carried out: weights and engines, what waits for what, memory.

Shares of a step's time are compared, so that they mean the same on any machine.
"""

from __future__ import annotations

from itertools import pairwise, product
from statistics import median

from hybridflow.observe.alarms.alarm import Finding, alarm_rules
from hybridflow.observe.alarms.metric_window import MetricWindow

STEPS = 5  # whose median must show it
NOW = 3  # newest steps, whose median says how it is
STALE_STEPS = 2.5  # steps behind: async as it comes allows 1
FAR = 0.7  # nats a token: in the mean the policy makes them twice as likely as when they were sampled, or half
FRESH = 0.01  # versions, the mean over rows: nearly all rows are of the newest weights
APART = 0.05  # nats a token, of the same weights: bfloat16 has 0.01 to 0.02, and a ratio is off by 5 %
APART_TIMES, APART_LEAST = 100.0, 1e-3  # times what it was, in a number format that can do much better; nats a token
TOGETHER = 0.1  # of what it is now: engines that were so close can compute alike
GROWS = 1.8  # last over first: what is missing of weights grows with each update, what is wrong with an engine stays
SLOW_SHARE = 0.4  # of a step's seconds: most of what it could take is lost to one thing
LEAST_S = 0.1  # seconds a step, below which nobody waits
GRADING = ("compute_reward", "compute_baseline", "compute_cost")
UPDATE = "timing_s/update_"
STRAGGLING = "timing_s/straggling/"
STRAGGLING_STEPS = 8  # with the same rank in each: by chance one of two ranks is so often in one of 128 windows
STRAGGLING_SHARE = 0.1  # of a step's seconds, the median, in which all other ranks wait for it
STRAGGLING_LEAST = 0.05  # of them in all steps but one: of ranks that a busy machine slows in turn it is less
START_UP = 2  # steps in which processes still import and compile
SHARED_OUT = 8  # rows of each replica: fewer are uneven however they are shared out
IMBALANCES = "/token_imbalance"
IMBALANCE = 1.3  # tokens of the rank that has most over the mean; rows that are balanced by tokens have below 1.1
FILLING = 10  # steps in which caches fill and allocators take what they keep
GROWTH = 1.3  # times what it was after them
GROWTH_GIB = 0.25  # and so much more: less is nobody's trouble, and a small process doubles soon
PARTS = range(4)  # of the newest steps, of which every one must have more than that before
PART_STEPS = (NOW, 10)  # of a part: what grows at every step is told soon, what comes every so many steps as well
STEADY = 0.5  # of the mean growth since then: what fills up grows less and less


@alarm_rules.register("stale_weights")
def stale_weights(window: MetricWindow) -> Finding | None:
    """See samples of weights that training has left behind, by their versions or by their log-probs alone.

    The latter: engines that agreed once, and so can, drift apart with every update, of rows that claim to be fresh.
    Rows as old as the schedule's bound allows were asked for, unless their policy is far from the one that learns.
    """
    updates = _updates(window)
    lag = window.median("rollout/version_lag_mean", STEPS)
    if lag is not None and updates is not None and lag / updates >= STALE_STEPS and not _is_harmless(window, lag):
        seen = f"rollout/version_lag_mean {lag:.1f} updates, {lag / updates:.1f} steps"
        return _stale(STEPS, seen)
    drift = _apart(window)
    if drift is None or not drift.agreed or not drift.of_weights:
        return None
    seen = f"actor/rollout_log_prob_diff_mean {drift.now:.2g} nats a token, where it was {drift.least:.2g}"
    return _stale(NOW, seen)


def _is_harmless(window: MetricWindow, lag: float) -> bool:
    """Tell whether a lag in versions was allowed, and the policy has moved little meanwhile."""
    allowed = window.median("rollout/version_lag_allowed", STEPS)
    moved = window.median("actor/rollout_log_prob_diff_mean", STEPS)
    return allowed is not None and lag <= allowed and (moved is None or moved < FAR)


def _updates(window: MetricWindow) -> float | None:
    """Return the updates of a step, of which each makes a version.

    None: some step had none, as while a critic learns alone, so a lag in updates says nothing of steps.
    """
    updates = window.median("actor/updates", STEPS)
    if updates is None:
        return None if window.first("actor/updates", 1) else 1.0
    return max(updates, 1.0)


def _stale(steps: int, seen: str) -> Finding:
    return Finding(
        steps,
        seen,
        "Generation samples with weights that training has left behind: a weight sync is missing or late, or the "
        "schedule lets rows grow old.",
        "Lower trainer.max_staleness, give generation more slots, leave rollout.verify_refit on; in a schedule or "
        "worker of your own look at when sync_weights is called.",
    )


@alarm_rules.register("log_probs_apart")
def log_probs_apart(window: MetricWindow) -> Finding | None:
    """See that generation and training give the same tokens other log-probs, with the same weights."""
    drift = _apart(window)
    apart = _apart_at_first(window) if drift is None else drift.now
    if apart is None or (drift is not None and drift.agreed and not drift.of_engines):
        return None
    return Finding(
        NOW,
        f"actor/rollout_log_prob_diff_mean {apart:.2g} nats a token where rollout/version_lag_mean is 0",
        "The two engines compute another policy from the same weights: a number format, a kernel, a temperature or a "
        "part of the vocabulary is not the same, or rows were changed after they were sampled.",
        "Give both the same dtype, look at what a worker of yours changes, leave rollout.max_log_prob_diff on, or "
        "correct for it (algorithm.policy_loss.correction); docs/numerics.md says what is normal.",
    )


class _Drift:
    """How far the log-probs of rows of the newest weights lie apart, and since when.

    Attributes:
        now: median of the newest steps, in nats a token.
        least: that of any step that is known, but for the newest.
        agreed: they once lay so much closer that the engines can compute alike.
        of_weights: they come and go, or grow, as what is missing of weights does.
        of_engines: they have come to another level and stay there, for `STEPS` steps.
    """

    def __init__(self, now: float, values: list[float]) -> None:
        self.now = now
        self.least = min(values)
        self.agreed = self.least <= TOGETHER * now
        far = [place for place, value in enumerate(values) if value > TOGETHER * now]
        newest = [values[place] for place in far[-STEPS:]]
        comes_and_goes = len(far) < len(values) - far[0]
        self.of_weights = len(far) >= NOW and (comes_and_goes or newest[-1] >= GROWS * newest[0])
        self.of_engines = len(far) >= STEPS and not self.of_weights


def _apart(window: MetricWindow) -> _Drift | None:
    """Return how far fresh rows' log-probs lie apart; None if they do not, or rows are not fresh."""
    name = "actor/rollout_log_prob_diff_mean"
    now = window.median(name, NOW)
    lags = window.newest("rollout/version_lag_mean", NOW)
    first = window.first(name, 1)
    if now is None or lags is None or first is None or max(lags) > FRESH:
        return None
    values = [*first, *(window.newest(name, min(len(window.steps), 2 * STEPS)) or window.newest(name, NOW) or [])]
    if now < APART and not (now >= APART_LEAST and now >= APART_TIMES * min(values)):
        return None
    return _Drift(now, values)


def _apart_at_first(window: MetricWindow) -> float | None:
    """Return how far log-probs of the first step lay apart, if they do since.

    Whatever the schedule, its rows are of the newest weights: there are no others yet. Of later rows, which older
    weights sampled, nobody can tell what an engine makes of it from what was learned since.
    """
    first = window.first("actor/rollout_log_prob_diff_mean", 1)
    lags = window.first("rollout/version_lag_mean", 1)
    now = window.median("actor/rollout_log_prob_diff_mean", NOW)
    if first is None or lags is None or now is None or lags[0] > FRESH:
        return None
    return first[0] if min(first[0], now) >= APART else None


@alarm_rules.register("slow_grader")
def slow_grader(window: MetricWindow) -> Finding | None:
    """See steps that mostly wait for grades."""
    methods = [f"timing_s/{method}" for method in GRADING if window.newest(f"timing_s/{method}", STEPS) is not None]
    grading = window.together(methods, STEPS) if methods else None
    if grading is None:
        return None
    seconds = median(map(sum, grading))
    share = _share_of_step(window, min(seconds, _rest_of_step(window)))
    if share is None or share < SLOW_SHARE:
        return None
    return Finding(
        STEPS,
        f"grading takes {seconds:.2f} s a step, {share:.0%} of it beside no sampling and no update",
        "The step waits for the grader, while generation and training have nothing to do.",
        "Let graders have a pool of their own (placement=standalone), so that rows are graded while others are still "
        "sampled; grade in batches, raise reward.grader_concurrency, lower reward.grader_deadline_s.",
    )


def _rest_of_step(window: MetricWindow) -> float:
    """Return the seconds of a step in which it is not at what takes longest of sampling and each update.

    On pools of their own others may work meanwhile; they do not make the step longer, but for these seconds.
    """
    names = ["timing_s/generate", *(name for name in window.names if name.startswith(UPDATE))]
    return (window.median("timing_s/step", STEPS) or 0.0) - max(window.median(name, STEPS) or 0.0 for name in names)


@alarm_rules.register("slow_environment")
def slow_environment(window: MetricWindow) -> Finding | None:
    """See steps that mostly wait for the environments of conversations."""
    seconds = window.median("timing_s/environment", STEPS)
    share = None if seconds is None else _share_of_step(window, seconds)
    if seconds is None or share is None or share < SLOW_SHARE:
        return None
    return Finding(
        STEPS,
        f"timing_s/environment {seconds:.2f} s of a step, {share:.0%}",
        "Sampling waits for environments: all conversations of a replica are with theirs at the same time.",
        "Raise environment.processes, have more conversations at once, or let training go on meanwhile "
        "(trainer.schedule=async).",
    )


def _share_of_step(window: MetricWindow, seconds: float) -> float | None:
    """Return the share that these seconds are of a step; None if that is not known, or they are too few to matter."""
    step = window.median("timing_s/step", STEPS)
    return seconds / step if step and seconds >= LEAST_S else None


@alarm_rules.register("straggling_rank")
def straggling_rank(window: MetricWindow) -> Finding | None:
    """See one rank that is nearly always the slowest of its pool, by much."""
    pools = [name.removeprefix(STRAGGLING) for name in window.names if name.startswith(STRAGGLING)]
    for pool in pools if window.last_step(STRAGGLING_STEPS) >= START_UP else ():
        names = (f"perf/slowest_rank/{pool}", f"{STRAGGLING}{pool}", "timing_s/step")
        known = window.together(names, STRAGGLING_STEPS)
        if known is None:
            continue
        ranks, seconds, steps = zip(*known, strict=True)
        if len({*ranks}) > 1 or median(seconds) < LEAST_S:
            continue
        shares = sorted(own / step for own, step in zip(seconds, steps, strict=True) if step)
        if len(shares) < STRAGGLING_STEPS or median(shares) < STRAGGLING_SHARE or shares[1] < STRAGGLING_LEAST:
            continue
        return Finding(
            STRAGGLING_STEPS,
            f"rank {ranks[0]:.0f} of pool {pool} takes {median(seconds):.2f} s longer than the others, "
            f"{median(shares):.0%} of a step",
            "One rank is slower than the others, whatever it is given, and they wait for it: its device or its host is "
            "busy with something else, throttled or broken.",
            "Look at what else runs on its machine (the event start in events.jsonl names it), at its clock and its "
            "memory; take the machine out if it stays so.",
        )
    return None


@alarm_rules.register("token_imbalance")
def token_imbalance(window: MetricWindow) -> Finding | None:
    """See a rank that is given many more tokens than the mean of all, of rows that could be shared out otherwise."""
    names = [name for name in window.names if name.endswith(IMBALANCES) and _has_rows(window, name)]
    ratios = {name: ratio for name in names if (ratio := window.median(name, STEPS)) is not None}
    name = max(ratios, key=lambda name: ratios[name], default="")
    if not name or ratios[name] < IMBALANCE:
        return None
    return Finding(
        STEPS,
        f"{name} {ratios[name]:.2f}",
        "One rank learns from many more tokens than the others, which wait for it: rows are shared out by their "
        "number, or a few rows have most of the tokens.",
        "Share rows out by their tokens (a protocol of yours: balance='tokens'), learn from more rows in an update "
        "(algorithm.minibatches), lower rollout.max_response_tokens.",
    )


def _has_rows(window: MetricWindow, name: str) -> bool:
    """Tell whether each replica has enough rows for even shares of tokens."""
    rows = window.median(f"{name.removesuffix(IMBALANCES)}/rows_per_replica", STEPS)
    return rows is None or rows >= SHARED_OUT


@alarm_rules.register("memory_growth")
def memory_growth(window: MetricWindow) -> Finding | None:
    """See memory that grows from step to step, long after caches are full, and does not slow down.

    Where answers have grown as much, it is theirs.
    """
    names = [name for name in window.names if name.endswith("/memory_peak_gib")]
    for name, width in product(names, PART_STEPS):
        begin = window.first_median(name, width, FILLING)
        newest = window.newest(name, len(PARTS) * width)
        if begin is None or newest is None:
            continue
        levels = [median(newest[part * width : (part + 1) * width]) for part in PARTS]
        now = levels[-1]
        if now < GROWTH * begin or now - begin < GROWTH_GIB or _answers_grow(window, width, now / begin):
            continue
        a_step = (now - begin) / max(window.steps[-1] - window.first_step(name, FILLING) - (width - 1), 1)
        lately = min(after - before for before, after in pairwise(levels)) / width
        if lately < STEADY * a_step:
            continue
        return Finding(
            len(newest),
            f"{name} {now:.2f} GiB, {begin:.2f} after {FILLING} steps: {1024 * a_step:.0f} MiB more each step",
            "Something keeps what a step has made, so memory runs out in the end: a list or a cache of yours that "
            "grows, tensors with their graph, results that nobody lets go.",
            "Look at what the plugin, grader or sink of yours keeps from step to step in the process that the metric "
            "names; trainer.save_every lets the run go on from a checkpoint when it ends.",
        )
    return None


def _answers_grow(window: MetricWindow, steps: int, times: float) -> bool:
    """Tell whether answers have become so many times as long, since memory is looked at."""
    begin = window.first_median("response_length/mean", steps, FILLING)
    now = window.median("response_length/mean", steps)
    return begin is not None and now is not None and now >= times * begin
