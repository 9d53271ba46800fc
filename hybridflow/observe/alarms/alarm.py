"""Alarm: what is wrong with a run, seen in which steps, why most likely, and what to do; and the registry of rules.

A rule is a function of the window of metrics, called after every step, that returns a `Finding` while it sees what it
looks for, else None. A metric that is not there is no reason for an alarm: not every algorithm measures all.

Example:
    @alarm_rules.register("shouting")
    def shouting(window: MetricWindow) -> Finding | None:
        share = window.median("environment/capitals", 5)
        if share is None or share < 0.5:
            return None
        return Finding(5, f"environment/capitals is {share:.0%}", "The policy writes in capitals.", "Read rollouts/.")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hybridflow.observe.alarms.metric_window import MetricWindow
from hybridflow.registry import Registry, is_users

PAGE = "docs/alarms.md"


@dataclass(frozen=True)
class Finding:
    """What a rule sees now.

    Attributes:
        steps: how many of the newest steps show it.
        seen: metrics and their figures.
        cause: the likely one, in one plain sentence.
        advice: what to do, in one.
    """

    steps: int
    seen: str
    cause: str
    advice: str


@dataclass(frozen=True)
class Alarm:
    """Alarm as it was told, once for all steps in which a rule went on seeing it.

    Attributes:
        name: of the rule.
        first_step: the first of the steps that showed it when it was told.
        last_step: that after which it was told.
        seen, cause, advice: those of the `Finding`.
        page: its section in the documentation.
    """

    name: str
    first_step: int
    last_step: int
    seen: str
    cause: str
    advice: str
    page: str

    def __str__(self) -> str:
        steps = f"step {self.last_step}"
        if self.first_step < self.last_step:
            steps = f"steps {self.first_step}–{self.last_step}"
        return f"alarm {self.name}, {steps}: {self.seen}. {self.cause} {self.advice} ({self.page})"

    def facts(self) -> dict[str, Any]:
        """Return its fields, as `events.jsonl` has them; `step` is the last one."""
        fields = asdict(self)
        return {"step": fields.pop("last_step"), **fields}


AlarmRule = Callable[[MetricWindow], Finding | None]

alarm_rules: Registry[AlarmRule] = Registry(
    "alarm",
    "hybridflow.observe.alarms.reward_rules",
    "hybridflow.observe.alarms.learning_rules",
    "hybridflow.observe.alarms.update_rules",
    "hybridflow.observe.alarms.running_rules",
    of=Callable,
)


def page_of(name: str, rule: AlarmRule) -> str:
    """Return the section of the documentation on an alarm of ours; that on alarms of your own for any other."""
    return f"{PAGE}#{'alarms-of-your-own' if is_users(rule) else name.replace('_', '-')}"
