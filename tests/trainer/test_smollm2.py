"""Steps of GRPO on a real model: SmolLM2-135M-Instruct in bfloat16, with its own chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tasks.written_rows import Row, write_jsonl, write_parquet
from tests.trainer.conftest import Ran
from tests.trainer.processes import start

pytestmark = [pytest.mark.slow, pytest.mark.ranks, pytest.mark.timeout(1200)]

SIZES = ["trainer.validation_prompts=4", "algorithm.prompts_per_step=2"]
SIZES.append("algorithm.policy_loss.entropy_coef=0.01")  # lets all steps learn, whatever the few rewards are
ASKED = "Tom has {} apples and buys {} more. How many apples does Tom have? Answer with just the number."


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the model in it, which is made once."""
    from hybridflow.cli import model

    folder = tmp_path_factory.getbasetemp() / "smollm2"
    assert model.run(["smollm2", "--out", str(folder / "models/smollm2-135m-instruct")]) == 0
    return folder


@pytest.mark.parametrize("cut", ["data", "pipeline"])
def test_two_steps(place: Path, cut: str) -> None:
    """Actor on two data parallel ranks, or cut into two pipeline stages (tied embeddings on both)."""
    cuts = ["actor.parallel.pipeline=2", "reference.parallel.pipeline=2"] if cut == "pipeline" else []
    ran = finish(["train", "experiment=smollm2", f"run.name={cut}", "trainer.steps=2", *SIZES, *cuts], place, cut)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 2
    for step in ran.steps:
        assert step["actor/rollout_log_prob_diff_mean"] < 0.05
        assert 1 <= step["response_length/mean"] <= 32
        assert "reward/mean" in step
    assert 0 < ran.steps[1]["timing_s/refit_proof"] < 0.05 * ran.steps[1]["timing_s/step"]
    assert ran.output.count("log-prob diff") == 2, "every step prints its line"


def gsm8k(a: int, b: int) -> Row:
    return {"question": ASKED.format(a, b), "answer": f"Tom has {a} + {b} = <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"}


def verl(a: int, b: int) -> Row:
    chat = [{"role": "user", "content": ASKED.format(a, b)}]
    reward = {"style": "rule", "ground_truth": str(a + b)}
    return {"data_source": "openai/gsm8k", "prompt": chat, "reward_model": reward, "extra_info": {"a": a, "b": b}}


@pytest.mark.parametrize("kind", ["gsm8k_jsonl", "gsm8k_parquet", "verl_parquet"])
def test_three_steps_on_rows_of_gsm8k(place: Path, kind: str) -> None:
    """Whatever holds the rows, the model is asked the same questions, and its grades are of the same answers."""
    row_of, write = (verl if kind.startswith("verl") else gsm8k), (write_jsonl if kind.endswith("l") else write_parquet)
    (place / kind).mkdir()
    file = write(place / kind, [row_of(a, b) for a in range(2, 10) for b in range(2, 10)])
    rows = ["task=rows", f"task.options.path={file}", "task.as_chat=true"]
    ran = finish(["train", "experiment=smollm2", f"run.name={kind}", "trainer.steps=3", *SIZES, *rows], place, kind)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 3
    assert all(step["actor/rollout_log_prob_diff_mean"] < 0.05 for step in ran.steps)
    written = [json.loads(line) for path in (ran.folder / "rollouts").iterdir() for line in path.open()]
    asked = {ASKED.format(a, b): str(a + b) for a in range(2, 10) for b in range(2, 10)}
    assert len(written) == 3 * 2 * 4
    for answer in written:
        (question,) = [text for text in asked if text in answer["prompt"]]
        assert answer["answer"] == asked[question]


def finish(arguments: list[str], place: Path, name: str) -> Ran:
    process = start(arguments, place)
    output, _ = process.communicate(timeout=900)
    return Ran(process.returncode, output, place / "runs" / name)
