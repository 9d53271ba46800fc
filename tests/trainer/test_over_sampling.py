"""Whole runs that generate more prompts than a step learns from, and stop the last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer import sync_in_order
from tests.trainer.conftest import APART, Launch, Ran

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

PROMPTS, SPARE, STEPS = 8, 4, 5
ENTRIES = ("sample_id", "prompt", "response", "rewards", "weight_version")
# All rows at once, and lengths that differ: so what was begun first is not what finishes first.
SHORT = (
    *APART,
    f"trainer.steps={STEPS}",
    f"trainer.save_every={STEPS}",
    "trainer.keep_best=",
    "rollout.max_concurrent_rows=96",
    "rollout.temperature=1.5",
    f"plugins=[tests.trainer.token_by_token, {sync_in_order.__name__}]",
)
OVER_SAMPLED = ("trainer.schedule=async", "trainer.max_staleness=0", f"trainer.spare_prompts={SPARE}")


def trained_rows(ran: Ran) -> list[list[tuple[object, ...]]]:
    """The rows of each step, sorted."""
    steps: list[list[tuple[object, ...]]] = [[] for _ in range(STEPS)]
    for file in (ran.folder / "rollouts").glob("rank*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            steps[line["step"]].append(tuple(line[name] for name in ENTRIES))
    return [sorted(rows) for rows in steps]


def prompts_of(steps: list[list[tuple[object, ...]]]) -> list[list[object]]:
    return [sorted({row[0] for row in rows}) for rows in steps]  # type: ignore[type-var]


def dropped_of(ran: Ran) -> list[int]:
    """What is in the checkpoint after the last step; where no prompt is under way or was dropped, nothing is."""
    state = json.loads((ran.folder / f"checkpoints/step-{STEPS:06d}/trainer.json").read_text())
    found: list[int] = state["schedule"].get("scheduler", {"dropped": []})["dropped"]
    return found


@pytest.mark.parametrize("stopped", ["next_step", "long_round", "drop"])
def test_over_sampling_leaves_the_bits_of_sync_that_is_given_its_prompts(
    stopped: str, launch: Launch, warm: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it moves or drops it moves or drops whole: rows, weights and what was learned are those of plain sync."""
    ran = launch("train", f"over_{stopped}", *SHORT, *OVER_SAMPLED, f"trainer.stopped={stopped}")
    assert ran.status == 0, ran.output
    rows = trained_rows(ran)
    order = prompts_of(rows)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(order))
    monkeypatch.setenv(sync_in_order.ORDER, str(file))
    plain = launch("train", f"plain_{stopped}", *SHORT, f"trainer.schedule={sync_in_order.NAME}")
    assert plain.status == 0, plain.output
    assert trained_rows(plain) == rows
    weights = [run.folder / "model/model.safetensors" for run in (ran, plain)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    drawn = json.loads(Path(f"{file}{sync_in_order.DRAWN}").read_text())
    dropped = [drawn[number] for number in dropped_of(ran)]
    learned = [prompt for step in order for prompt in step]
    assert sorted([*learned, *dropped]) == sorted(drawn[: STEPS * PROMPTS + len(dropped)]), "each once, or listed"
    counted = [step["rollout/stopped_prompts"] for step in ran.steps]
    assert sum(counted) > 0 and max(counted) <= SPARE, "else nothing was stopped, and this shows nothing"
    assert len(dropped) == (sum(counted) if stopped == "drop" else 0)
    in_order = [sorted(drawn[step * PROMPTS : (step + 1) * PROMPTS]) for step in range(STEPS)]
    assert order != in_order, "else nothing was moved"
