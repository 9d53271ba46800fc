"""docs/alarms.md: its rule works, and its figures are those of the rules."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hybridflow.observe.alarms import AlarmWatch, alarm_rules, learning_rules, reward_rules, running_rules, update_rules
from tests.docs.blocks import write_files

PAGE = "docs/alarms.md"
TEXT = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")


def test_its_rule_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(PAGE, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    list(alarm_rules)  # ours are all there before one is put among them
    monkeypatch.setattr(alarm_rules, "_components", alarm_rules.registered)
    importlib.import_module("my_alarms")
    watch = AlarmWatch()
    told = [alarm for step in range(8) for alarm in watch.look({"step": step, "perf/goodput": 0.4})]
    assert [(alarm.name, alarm.page) for alarm in told] == [("low_goodput", f"{PAGE}#alarms-of-your-own")]


@pytest.mark.parametrize(
    "told",
    [
        f"{running_rules.STALE_STEPS:g} steps",
        f"{running_rules.IMBALANCE:g} or more",
        f"{running_rules.STRAGGLING_SHARE:.0%} of a step",
        f"{running_rules.SLOW_SHARE:.0%} of a step",
        f"{update_rules.GRADIENT_FAR:,.0f} or more",
        f"have {reward_rules.MIN_FALLEN_ROWS} rows",
        f"one chance in {1 / reward_rules.CHANCE:,.0f}",
        f"{learning_rules.GREEDY_GROUPS:.0%} or less",
        f"{running_rules.APART:g} nats or more",
        f"{learning_rules.TRUNCATED:.0%} or more",
        f"{reward_rules.MIN_GROUPED_ROWS} rows together",
        f"{reward_rules.ALL_CUT_OFF:.0%} of the answers are cut off",
        f"{learning_rules.CUT_OFF_MORE:.0%} more",
        f"{reward_rules.UNEQUAL_GROUPS:.0%} or less",
        f"below {learning_rules.ENTROPY_LOW:g} nats",
        f"below {learning_rules.ENTROPY_NONE:g} for",
        f"{update_rules.KL_FAR:g} nats a token or more",
        f"`actor/approx_kl` {update_rules.KL_UPDATE:g} or more",
        f"fewer than {reward_rules.MIN_ROWS} rows",
        f"is {running_rules.FAR:g} nats a",
    ],
)
def test_its_figures_are_those_of_the_rules(told: str) -> None:
    assert told in TEXT.replace(" %", "%")
