"""AlarmWatch: asks every rule after each step, and tells a cause once: not each step, and not what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from hybridflow.observe.alarms.alarm import Alarm, AlarmRule, Finding, alarm_rules, page_of
from hybridflow.observe.alarms.metric_window import MetricWindow

REST = 25  # steps without it after which what comes again is told again, and what follows from it is told for itself
# What becomes of a policy that has lost what it could, whatever broke it: it says anything, one thing or nothing.
LOST = frozenset(
    {
        "all_groups_alike", "dead_reward", "entropy_collapse", "entropy_explosion", "exploding_gradients",
        "falling_reward", "frozen_weights", "kl_blow_up", "length_collapse", "length_explosion", "truncation",
    }
)  # fmt: skip
# Where two explain each other, the one that was seen first is the cause; of two in one step the one whose signs are
# older, or else that which stands first.
EXPLAINS: Mapping[str, frozenset[str]] = {
    # Older weights give other log-probs, and who learns from their rows as if they were new ones goes astray.
    "stale_weights": LOST | {"log_probs_apart"},
    # So does who learns from rows of what is another policy.
    "log_probs_apart": LOST,
    # Samples that are all alike teach only by accident, and tokens that are never drawn drift.
    "greedy_sampling": LOST - {"truncation"},
    # Gradients of rewards of such a size hide whatever else should hold the policy.
    "exploding_gradients": LOST,
    # A term of the loss that pays for entropy, or for none, takes the policy from where it was.
    "entropy_explosion": LOST,
    "kl_blow_up": LOST,
    "entropy_collapse": LOST - {"truncation"},
    "length_explosion": LOST,
    "length_collapse": LOST - {"truncation"},
    "truncation": frozenset({"falling_reward"}),
    # Without any reward no group has a better answer, and nothing that it is from was better.
    "dead_reward": frozenset({"all_groups_alike", "falling_reward", "frozen_weights"}),
    # A reward that falls comes to be none in the end.
    "falling_reward": frozenset({"all_groups_alike", "dead_reward"}),
    # Without a better answer nothing is learned.
    "all_groups_alike": frozenset({"frozen_weights"}),
    # What no gradient corrects goes on by its momentum.
    "frozen_weights": frozenset({"falling_reward"}),
    # The rank that has more tokens takes longer.
    "token_imbalance": frozenset({"straggling_rank"}),
}
CAUSAL = [*EXPLAINS]
EXPLAINS_ALL = "non_finite"  # makes other numbers worthless; one that goes on for REST steps does not, it seems

log = logging.getLogger(__name__)


class AlarmWatch:
    """Watch over the metrics of a run, step by step.

    A rule that raises is left out from then on, with a warning in the log: no alarm ends a run.

    Args:
        rules: by name; None: all that are registered.
    """

    def __init__(self, rules: Mapping[str, AlarmRule] | None = None) -> None:
        self._rules = {name: alarm_rules.get(name) for name in alarm_rules} if rules is None else dict(rules)
        self._window = MetricWindow()
        self._last_seen: dict[str, int] = {}
        self._first_seen: dict[
            str, tuple[int, int]
        ] = {}  # since its last rest: when, and the first step that showed it
        self._told: dict[str, int] = {}  # after which step

    @classmethod
    def after(cls, records: Iterable[Mapping[str, Any]]) -> AlarmWatch:
        """Return the watch over a run that goes on after these lines, whose alarms have been told."""
        watch = cls()
        for record in records:
            watch.look(record)
        return watch

    def look(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Take in a line of metrics, as `metrics.jsonl` has them; return the alarms that are to be told now."""
        if not self._window.take(record):
            return []
        step = self._window.steps[-1]
        # Where the run went back, what was seen in steps that are undone was seen before this one.
        last_seen = {name: min(seen, step) for name, seen in self._last_seen.items()}
        self._told = {name: told for name, told in self._told.items() if step - last_seen[name] <= REST}
        found = {name: finding for name in list(self._rules) if (finding := self._ask(name)) is not None}
        self._last_seen = last_seen | dict.fromkeys(found, step)
        lately = [name for name, seen in self._last_seen.items() if step - seen <= REST]
        now = {name: (step, self._window.last_step(finding.steps)) for name, finding in found.items()}
        self._first_seen = {
            name: min(self._first_seen.get(name, now.get(name, (step, step))), (step, step)) for name in lately
        }
        broken = EXPLAINS_ALL in found and step - self._told.get(EXPLAINS_ALL, step) <= REST
        new = [
            name
            for name in found
            if name not in self._told and not (broken and name != EXPLAINS_ALL) and not self._explained(name)
        ]
        self._told |= dict.fromkeys(new, step)
        return [self._alarm(name, found[name]) for name in new]

    def _explained(self, name: str) -> bool:
        """Tell whether an alarm follows from another that is seen now or was seen lately."""
        others = [other for other in self._first_seen if name in EXPLAINS.get(other, ())]
        return any(other not in EXPLAINS.get(name, ()) or self._came(other) < self._came(name) for other in others)

    def _came(self, name: str) -> tuple[int, int, int]:
        """Return when a cause was seen first, and its place among those that were in the same step."""
        return *self._first_seen[name], CAUSAL.index(name)

    def _ask(self, name: str) -> Finding | None:
        try:
            return self._rules[name](self._window)
        except Exception:
            log.warning("alarm %r failed, and is left out from now on", name, exc_info=True)
            del self._rules[name]
            return None

    def _alarm(self, name: str, finding: Finding) -> Alarm:
        return Alarm(
            name,
            self._window.last_step(finding.steps),
            self._window.steps[-1],
            finding.seen,
            finding.cause,
            finding.advice,
            page_of(name, self._rules[name]),
        )


def alarms_of(records: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """Return the alarms of a run's metrics, in the order in which they would have been told.

    Args:
        records: lines of `metrics.jsonl` in their order, those of validations too; a null in them was not finite.
    """
    watch = AlarmWatch()
    return [alarm for record in records for alarm in watch.look(record)]
