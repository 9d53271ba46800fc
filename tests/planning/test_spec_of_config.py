"""From settings to a spec: models as their folders say, lengths of the task's rows, and what is an expectation."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hybridflow.config import compose
from hybridflow.config.schema import Config, Recompute
from hybridflow.models import Head
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.row_lengths import expected_responses, sampled_lengths
from hybridflow.planning.spec_of_config import spec_of
from tests.planning.specs import SHAPE

ROLES = ("actor", "critic", "reference", "cost_critic", "reward_model")
SHAPES = dict.fromkeys(ROLES, SHAPE)
ALPHABET = "0123456789+="


def load(folder: Path, *overrides: str, config: str = "train", experiment: str = "addition") -> Config:
    return compose.compose(config, [f"experiment={experiment}", f"actor.model.path={folder}", *overrides]).to_config()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with a tokenizer of one token a character."""
    vocabulary = {char: number for number, char in enumerate(ALPHABET)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return tmp_path


def test_settings_of_roles_are_in_their_models(folder: Path) -> None:
    config = load(
        folder,
        "actor.recompute=selective",
        "actor.optimizer.distributed=true",
        "critic.max_tokens_per_rank=512",
        "reference.offload.weights=true",
        "actor.parallel.sequence=true",
        "rollout.max_concurrent_rows=7",
        "rollout.kv_cache_gib=0.5",
        "placement.device=cpu",
    )
    spec = spec_of(config, shapes=SHAPES)
    actor, critic, reference = (spec.models[role] for role in ("actor", "critic", "reference"))
    assert (actor.trains, actor.recompute, actor.sharded_optimizer) == (True, Recompute.selective, True)
    assert actor.sequence and not critic.sequence
    assert (critic.trains, critic.head, critic.max_tokens_per_rank) == (True, Head.value, 512)
    assert (reference.trains, reference.head, reference.offloads_weights) == (False, Head.lm, True)
    assert "reward" not in spec.models
    assert (spec.max_concurrent_rows, spec.kv_cache_bytes) == (7, 2**29)
    assert (spec.prompts, spec.samples) == (config.algorithm.prompts_per_step, config.algorithm.samples_per_prompt)


def test_prompts_are_as_long_as_the_tasks_and_responses_an_expectation(folder: Path) -> None:
    config = load(folder)
    spec = spec_of(config, shapes=SHAPES)
    sampled = sampled_lengths(config, supervised=False)
    assert sampled == (spec.prompt_tokens, None)
    assert 4 <= spec.prompt_tokens.mean <= 7  # 12+34=
    assert spec.response_tokens == expected_responses(config)
    assert spec.response_tokens.max == config.rollout.max_response_tokens
    assert [note.split(":")[0].split(",")[0] for note in spec.notes] == [
        f"prompts have {spec.prompt_tokens.mean:.0f} tokens",
        "response tokens are expected",
    ]


def test_what_is_taught_is_as_long_as_the_tasks_answers(folder: Path) -> None:
    config = load(folder, config="sft", experiment="addition_warmup")
    spec = spec_of(config, shapes=SHAPES)
    assert 2 <= spec.response_tokens.mean <= 5  # 123 and its end
    assert spec.samples == 1
    assert len(spec.notes) == 1


def test_lengths_that_are_given_are_taken(folder: Path) -> None:
    lengths = Lengths((3.0,)), Lengths((5.0,))
    spec = spec_of(load(folder), shapes=SHAPES, prompt_tokens=lengths[0], response_tokens=lengths[1])
    assert (spec.prompt_tokens, spec.response_tokens, spec.notes) == (*lengths, ())


def test_rows_of_the_hub_or_that_cannot_be_read_leave_an_expectation(folder: Path, tmp_path: Path) -> None:
    config = load(folder)
    hub = replace(config, task=replace(config.task, name="rows", options={"path": "someone/something"}))
    broken = tmp_path / "rows.jsonl"
    broken.write_text("{")
    wrong = replace(config, task=replace(config.task, name="rows", options={"path": str(broken)}))
    most = config.rollout.max_sequence_tokens - config.rollout.max_response_tokens
    for unread in (hub, wrong):
        spec = spec_of(unread, shapes=SHAPES)
        assert (spec.prompt_tokens.quantiles[0], spec.prompt_tokens.max) == (most / 2, most)
        assert spec.notes[0].startswith("prompt tokens are expected")


def test_responses_are_as_long_as_those_of_an_earlier_run(folder: Path) -> None:
    """Of its newest step, with the end of those that ended by themselves."""
    config = load(folder, f"run.root={folder}")
    rollouts = folder / "addition" / "rollouts"
    rollouts.mkdir(parents=True)
    rows = [
        {"step": 5, "response": "1234", "finish_reason": "end"},
        {"step": 5, "response": "12", "finish_reason": "length"},
    ]
    lines = [json.dumps(row) for row in [{"step": 0, "response": "1" * 60}, *rows * 10]]
    (rollouts / "rank0.jsonl").write_text("\n".join(["half of a line", *lines]))
    spec = spec_of(config, shapes=SHAPES)
    assert spec.response_tokens == Lengths((2.0,) * 10 + (5.0,) * 10)
    assert f"responses have 4 tokens, as the last rows in {rollouts}" in spec.notes


def test_a_schedule_brings_what_settings_change_of_it(folder: Path) -> None:
    apart = ("placement=rollout_pool", "algorithm=grpo", "actor.parallel.tensor=1")
    paced = spec_of(load(folder, *apart, "trainer.schedule=async", "trainer.max_staleness=3"), shapes=SHAPES)
    assert (paced.schedule, paced.schedule_changes) == ("async", {"max_staleness": 3})
    parts = spec_of(load(folder, *apart, "trainer.schedule=stream", "algorithm.minibatches=3"), shapes=SHAPES)
    assert parts.schedule_changes == {"minibatches": 3}


@pytest.mark.processes
def test_a_spec_and_its_step_need_neither_torch_nor_ray() -> None:
    code = """
import sys
import hybridflow.planning.spec_of_config, hybridflow.planning.step_simulation, hybridflow.planning.hardware_files
from hybridflow.algorithms import algorithms
algorithms.get("ppo")
print({"torch", "ray", "transformers", "vllm"} & {*sys.modules})
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
