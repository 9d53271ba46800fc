"""Two steps of GRPO on a real model: SmolLM2-135M-Instruct in bfloat16, with its own chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.conftest import Ran
from tests.trainer.processes import start

pytestmark = [pytest.mark.slow, pytest.mark.ranks, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("cut", ["data", "pipeline"])
def test_two_steps(tmp_path_factory: pytest.TempPathFactory, cut: str) -> None:
    """Actor on two data parallel ranks, or cut into two pipeline stages (tied embeddings on both)."""
    from hybridflow.cli import model

    place = tmp_path_factory.getbasetemp() / "smollm2"
    assert model.run(["smollm2", "--out", str(place / "models/smollm2-135m-instruct")]) == 0
    cuts = ["actor.parallel.pipeline=2", "reference.parallel.pipeline=2"] if cut == "pipeline" else []
    sizes = ["trainer.steps=2", "trainer.validation_prompts=4", "algorithm.prompts_per_step=2"]
    sizes.append("algorithm.policy_loss.entropy_coef=0.01")  # lets both steps learn, whatever the few rewards are
    ran = finish(["train", "experiment=smollm2", f"run.name={cut}", *sizes, *cuts], place, cut)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 2
    for step in ran.steps:
        assert step["actor/rollout_log_prob_diff_mean"] < 0.05
        assert 1 <= step["response_length/mean"] <= 32
        assert "reward/mean" in step
    assert ran.output.count("log-prob diff") == 2, "every step prints its line"


def finish(arguments: list[str], place: Path, name: str) -> Ran:
    process = start(arguments, place)
    output, _ = process.communicate(timeout=900)
    return Ran(process.returncode, output, place / "runs" / name)
