"""Three steps of training on one file of each format of rows, in the algorithms that people have such rows for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.written_rows import WRITERS
from tests.trainer.conftest import Ran
from tests.trainer.processes import start

pytestmark = [pytest.mark.slow, pytest.mark.ranks]

CHAT = "{% for message in messages %}{{ message.content }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
USER, RIGHT, WRONG = (
    {"role": role, "content": text} for role, text in (("user", "Q"), *[("assistant", x) for x in "AW"])
)
SPOKEN = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
GRPO = ("train", "algorithm=grpo", "algorithm.policy_loss.entropy_coef=0.01", "reward=exact")
SFT = ("sft", "reward=exact")
# Q is a question, A its answer, W a wrong one.
ROWS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "verl": ("parquet", GRPO, {"data_source": "sums", "prompt": [USER], "reward_model": {"ground_truth": "A"}}),
    "trl": ("jsonl", GRPO, {"prompt": "Q", "answer": "A"}),
    "trl_explicit": (
        "saved",
        ("train", "algorithm=dpo", "reward=exact"),
        {"prompt": "Q", "chosen": "A", "rejected": "W"},
    ),
    "trl_implicit": ("zstd", ("train-reward",), {"chosen": [USER, RIGHT], "rejected": [USER, WRONG]}),
    "openrlhf": ("gzip", GRPO, {"input": "Q", "label": "A"}),
    "gsm8k": ("crlf", GRPO, {"question": "Q", "answer": "a sum.\n#### A"}),
    "alpaca": ("array", SFT, {"instruction": "Q", "input": "", "output": "A"}),
    "sharegpt": ("array", SFT, {"conversations": SPOKEN}),
    "messages": ("jsonl", SFT, {"messages": [USER, RIGHT]}),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Path]) -> Path:
    """A tiny model whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("chatting") / "model"
    shutil.copytree(tiny(layers=2, hidden=64, heads=2, kv_heads=2), folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def rows_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    sums = [(a, b) for a in range(8) for b in range(8)]
    texts = [json.dumps(row).replace("Q", f"{a}+{b}?").replace("A", str(a + b)) for a, b in sums]
    return [json.loads(text.replace("W", "99")) for text in texts]


@pytest.mark.parametrize("name", ROWS)
def test_three_steps(name: str, model: Path, tmp_path: Path) -> None:
    kind, (subcommand, *settings), row = ROWS[name]
    file = WRITERS[kind](tmp_path, rows_of(row))
    rows = ["task=rows", f"task.options.path={file}", "task.options.held_out_fraction=0.2"]
    sizes = ["rollout=short", "placement.pools.main=1", "algorithm.prompts_per_step=8", "trainer.steps=3"]
    run = ["run.name=mine", f"actor.model.path={model}", "trainer.log_rollouts_every=1"]
    process = start([subcommand, *settings, *rows, *sizes, *run], tmp_path)
    output, _ = process.communicate(timeout=280)
    ran = Ran(process.returncode, output, tmp_path / "runs/mine")
    assert ran.status == 0, ran.output
    assert f"task.options.format: {name.partition('_')[0]} (" in (ran.folder / "logs/driver.log").read_text()
    assert len(ran.steps) == 3 and len(ran.accuracy) == 2
