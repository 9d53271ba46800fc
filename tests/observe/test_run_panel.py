"""The panel of a run: it fits every width, shows what is there, and what models write moves no cursor."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from hybridflow.observe import terminal
from hybridflow.observe.run_panel import RunPanel, duration
from hybridflow.observe.run_state import RunState
from hybridflow.observe.shown_metrics import SHOWN
from tests.observe.test_terminal import HOSTILE, NAMES, is_tame

METRICS = {
    "reward/mean": 0.25,
    "actor/kl": 0.0125,
    "response_length/mean": 5.5,
    "perf/tokens_per_s": 1463.4,
    "perf/goodput": 0.5,
    "actor/memory_peak_gib": 1.5,
    "reference/memory_peak_gib": 1.25,
    "timing_s/step": 4.0,
    "timing_s/generate_sequences": 1.0,
    "timing_s/generate": 0.9,
    "timing_s/compute_ref_log_prob": 0.5,
    "timing_s/update_actor": 2.0,
    "timing_s/sync_weights": 0.25,
    "timing_s/idle/main": 0.25,
}


def drawn(state: RunState, width: int, height: int = 0, now: float = 1000.0) -> str:
    """Draw a panel as text without colours; in so many lines where it has a height."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    console.print(RunPanel(state, now, height or None))
    return out.getvalue()


def build_state(steps: int = 4) -> RunState:
    state = RunState("sums", 8)
    state.take_metrics({"step": 0, "validation/accuracy": 0.125}, 900.0)
    for step in range(steps):
        spent = {"timing_s/run/start": 60.0, "timing_s/run/steps": 5.0 * (step + 1)}
        state.take_metrics({"step": step, **METRICS, **spent, "reward/mean": step / 8}, 990.0)
    state.take_event({"time": "?", "event": "checkpoint", "step": 2, "seconds": 0.25})
    state.take_event(
        {"event": "alarm", "name": "dead_reward", "step": 3, "cause": "All is 0.", "page": "docs/alarms.md#dead"}
    )
    state.sample = {"step": 3, "prompt": "56+17=", "response": "37", "answer": "370", "rewards": 0.5,
                    "grades": {"exact": 0.0, "close": 1.0}, "finish_reason": "end"}  # fmt: skip
    return state


IN_40 = """\
sums · running ─────────────────────────
4/8 steps ━━━━━━━        1:20, 0:20 left
step 4 under way for 0:10
accuracy  0.125 ▁
reward    0.375 ▁▃▆█
KL       0.0125 ▁▁▁▁
length      5.5 ▁▁▁▁
tokens/s   1463 ▁▁▁▁
goodput   50.0% ▁▁▁▁
step 3 took 4.00 s
█████████▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒░░··
█ generation  rollout   1.00 s 25%
▓ preparation reference 0.50 s 12%
▒ training    actor     2.00 s 50%
░ weight sync actor     0.25 s  6%
  idle        main      0.25 s  6%
memory peaks of a rank, GiB: actor 1.50
· reference 1.25
alarms ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
 dead reward, step 3: All is 0.
 (docs/alarms.md#dead)
events ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
 saved step 2 in 0.2 s
a row of step 3 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
prompt   56+17=
response 37
grades   reward 0.5 · exact 0 · close 1
          · answer 370 · finish rea… +7
"""
IN_80 = """\
sums · running ─────────────────────────────────────────────────────────────────
4/8 steps ━━━━━━━━━━━━━━━━━━━━                     1:20, 0:20 left
step 4 under way for 0:10
accuracy  0.125 ▁
reward    0.375 ▁▃▆█
KL       0.0125 ▁▁▁▁
length      5.5 ▁▁▁▁
tokens/s   1463 ▁▁▁▁
goodput   50.0% ▁▁▁▁
step 3 took 4.00 s
████████████▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒░░░···
█ generation  rollout   1.00 s 25%
▓ preparation reference 0.50 s 12%
▒ training    actor     2.00 s 50%
░ weight sync actor     0.25 s  6%
  idle        main      0.25 s  6%
memory peaks of a rank, GiB: actor 1.50 · reference 1.25
alarms ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
 dead reward, step 3: All is 0. (docs/alarms.md#dead)
events ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
 saved step 2 in 0.2 s
a row of step 3 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌
prompt   56+17=
response 37
grades   reward 0.5 · exact 0 · close 1 · answer 370 · finish reason end
"""


@pytest.mark.parametrize(("width", "wanted"), [(40, IN_40), (80, IN_80)])
def test_a_run_in_narrow_terminals(width: int, wanted: str) -> None:
    """Whoever changes the panel sees here what becomes of it."""
    assert [line.rstrip() for line in drawn(build_state(), width).splitlines()] == wanted.splitlines()


def test_a_run_in_120_columns() -> None:
    lines = drawn(build_state(), 120).splitlines()
    assert lines[0].startswith("sums · running ──") and len(lines[0]) == 120
    assert lines[1].split() == ["4/8", "steps", "━" * 20, "1:20,", "0:20", "left"]
    assert lines[2].strip() == "step 4 under way for 0:10"
    text = "\n".join(lines)
    for row in ("accuracy  0.125 ▁", "reward    0.375 ▁▃▆█", "KL       0.0125 ▁▁▁▁", "tokens/s   1463"):
        assert row in text, text
    for words in (
        "step 3 took 4.00 s",
        "generation  rollout   1.00 s 25%",
        "preparation reference 0.50 s 12%",
        "training    actor     2.00 s 50%",
        "weight sync actor     0.25 s  6%",
        "idle        main      0.25 s  6%",
        "memory peaks of a rank, GiB: actor 1.50 · reference 1.25",
        "saved step 2 in 0.2 s",
        "dead reward, step 3: All is 0. (docs/alarms.md#dead)",
        "a row of step 3",
        "prompt   56+17=",
        "response 37",
        "reward 0.5 · exact 0 · close 1 · answer 370 · finish reason end",
    ):
        assert words in text, text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_counts_is_there_in_every_width(width: int) -> None:
    text = drawn(build_state(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    for word in (
        "sums",
        "running",
        "4/8 steps",
        "reward",
        "▁▃▆█",
        "generation",
        "█",
        "saved step 2",
        "56+17=",
        "exact 0",
    ):
        assert word in text, text


def test_the_bar_is_as_long_as_the_step() -> None:
    bar = next(line for line in drawn(build_state(), 80).splitlines() if line.startswith("█"))
    assert (bar.count("█"), bar.count("▓"), bar.count("▒"), bar.count("░"), bar.count("·")) == (12, 6, 24, 3, 3)


def test_a_run_without_steps_says_so() -> None:
    text = drawn(RunState("sums", 8, "starting"), 80)
    assert "0/8 steps" in text and "no step is done yet" in text and "left" not in text
    assert "?" in drawn(RunState("sums"), 80)


def test_a_run_that_has_ended_waits_for_nothing() -> None:
    state = build_state()
    state.status, state.error = "failed", "\nno room\nmore of it"
    text = drawn(state, 80)
    assert "failed" in text and "no room" in text and "more of it" not in text
    assert "left" not in text and "under way" not in text


def test_what_is_not_finite_is_told() -> None:
    state = build_state()
    state.take_metrics({"step": 4, **METRICS, "reward/mean": float("nan"), "actor/kl": None, "actor/nll": "x"}, 0.0)
    text = drawn(state, 80)
    assert text.count("not finite") == 2 and "not finite ▁▃▆█ " in text and "nll" not in text


def test_a_low_terminal_is_shown_less() -> None:
    state = build_state()
    for step in range(20):
        state.take_event({"event": "checkpoint", "step": step})
    state.sample = {"step": 3, "prompt": "a" * 999, "response": "b" * 999, "rewards": 1.0}
    heights = [len(drawn(state, 80, height).splitlines()) for height in (99, 30, 24)]
    assert 30 < heights[0] <= 99 and heights[1] <= 30 and heights[2] <= 24
    assert "saved step 19" in drawn(state, 80, 24) and "bbb" in drawn(state, 80, 24)


@pytest.mark.parametrize("name", [*NAMES, HOSTILE])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_names_and_texts_are_shown_as_they_are(name: str, width: int) -> None:
    state = build_state()
    state.name = state.error = name
    state.take_event({"event": name, "time": name})
    state.take_event({"event": "failure", "error": name, "role": name})
    state.take_metrics({"step": 4, **METRICS, f"timing_s/{name}": 1.0, f"timing_s/idle/{name}": 1.0,
                        f"{name}/memory_peak_gib": 1.0}, 0.0)  # fmt: skip
    state.sample = {"step": 4, "prompt": name, "response": name, "answer": name, "grades": {name: 1.0}, "rewards": None}
    text = drawn(state, width)
    assert is_tame(text) and max(map(cell_len, text.splitlines())) <= width


def test_markup_and_emoji_stay_what_they_are() -> None:
    state = build_state()
    state.sample = {"step": 4, "prompt": "[bold]x[/bold] :smile:", "response": "[/]", "rewards": 1.0}
    text = drawn(state, 80)
    assert "[bold]x[/bold] :smile:" in text and "response [/]" in text


def test_long_text_is_cut_and_says_by_how_much() -> None:
    state = build_state()
    state.sample = {"step": 4, "prompt": "a" * 10_000, "response": "\n" * 10_000, "rewards": 1.0}
    lines = drawn(state, 80).splitlines()
    prompt = [line.strip() for line in lines if "aaaa" in line]
    assert len(prompt) == 3 and prompt[-1].endswith("a… +9797")
    assert sum(line.count("\\n\\n") > 0 for line in lines) == 3 and "n… +9899" in "".join(lines)


TEXT = st.text(st.characters(), max_size=300)
VALUE = st.none() | st.floats() | st.integers() | TEXT | st.booleans() | st.lists(st.floats(), max_size=2)
NAMES_OF_METRICS = st.sampled_from(
    [metric.name for metric in SHOWN] + [*METRICS, "timing_s/run/steps", "x/memory_peak_gib"]
)
LINES = st.dictionaries(NAMES_OF_METRICS | TEXT.map("timing_s/{}".format), VALUE, max_size=12)
ROWS = st.dictionaries(
    st.sampled_from(["prompt", "response", "rejected", "rewards", "costs", "grades", "answer"]) | TEXT, VALUE
)


@given(
    lines=st.lists(st.tuples(st.integers(-1, 2**64), LINES), max_size=5),
    row=st.none() | ROWS,
    events=st.lists(st.dictionaries(st.sampled_from(["event", "time", "step", "error"]) | TEXT, VALUE), max_size=4),
    names=st.tuples(TEXT, TEXT, TEXT),
    size=st.tuples(st.integers(20, 160), st.integers(0, 60)),
)
def test_whatever_a_run_has_is_drawn(
    lines: list[tuple[int, dict[str, Any]]],
    row: dict[str, Any] | None,
    events: list[dict[str, Any]],
    names: tuple[str, str, str],
    size: tuple[int, int],
) -> None:
    state = RunState(names[0], 3, names[1], names[2])
    for step, line in lines:
        state.take_metrics({**line, "step": step}, 0.0)
    for event in events:
        state.take_event(event)
    state.sample = None if row is None else {**row, "step": 1}
    text = drawn(state, *size)
    assert terminal.visible(text) == text and all(cell_len(line) <= size[0] for line in text.split("\n"))


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 61, 3723.9, -1, float("nan"), float("inf"), None)] == [
        "0:00", "1:01", "1:02:03", "?", "?", "?", "?"
    ]  # fmt: skip


def test_why_something_failed_has_room() -> None:
    state = build_state()
    error = "its process has gone: killed by SIGKILL, most likely by the kernel, as memory ran out"
    state.take_event({"event": "failure", "kind": "infra", "role": "actor", "method": "x", "rank": 0, "error": error})
    assert "".join(line[9:].rstrip("\n") for line in drawn(state, 80).splitlines(keepends=True)).count("ran out") == 1
    assert "ran out" not in drawn(state, 80, 24)
