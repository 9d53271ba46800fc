"""The main job, short: warm up, then PPO and GRPO from there, and what they leave in the run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from hybridflow.cli import model
from hybridflow.config.schema import DType
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.tasks.addition import Addition
from tests.trainer.conftest import ONE_RANK, SIZES, Launch, Ran
from tests.trainer.processes import start

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]  # what several tests read is run in the first


def test_the_warm_up_learns(warm: Ran) -> None:
    assert warm.status == 0, warm.output
    first, last = warm.steps[0]["actor/nll"], warm.steps[-1]["actor/nll"]
    assert last < 0.6 * first
    assert warm.accuracy[-1] > 0


def test_ppo_agrees_with_vllm_at_every_step(ppo: Ran) -> None:
    """Every step reshards tensor 2 to tensor 1; a stale or misplaced weight would show here, and before it is used."""
    assert ppo.status == 0, ppo.output
    assert len(ppo.steps) == 4
    for step in ppo.steps:
        assert step["actor/rollout_log_prob_diff_max"] < 1e-5
        assert step.get("actor/skipped_steps", 0) == 0
        assert step["rollout/version_lag_max"] == 0
    refits = [step for step in ppo.steps if "refit/repeated" in step]
    assert len(refits) >= 2, "one in each step after one in which the actor has learned"
    for step in refits:
        assert 0 < step["timing_s/refit_proof"] < 0.1 * step["timing_s/step"]
        assert step["refit/repeated"] == 0
    assert [("actor/grad_norm" in step, "critic/grad_norm" in step) for step in ppo.steps] == [
        (False, True),
        (True, True),
        (True, True),
        (True, True),
    ]


def test_colocated_roles_have_layouts_of_their_own(ppo: Ran) -> None:
    for role, cut in (("actor", "2 × pipeline 1 × data 1"), ("critic", "1 × pipeline 1 × data 2")):
        assert f"starting {role} on pool main: 2 ranks, tensor {cut}" in ppo.output
    assert "starting reference on pool main: 2 ranks, tensor 1 × pipeline 2 × data 1" in ppo.output


def test_the_run_folder_tells_the_run(ppo: Ran) -> None:
    config = OmegaConf.load(ppo.folder / "config.yaml")
    assert config.actor.parallel.tensor == 2
    assert config.algorithm.prompts_per_step == 129
    files = sorted((ppo.folder / "rollouts").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 4 * 129, "an odd number of rows, none lost and none made up"
    assert {row["step"] for row in rows} == {0, 1, 2, 3}
    assert [row["weight_version"] for row in rows if row["step"] == 1] == [0] * 129  # the critic's head start
    for row in rows:
        assert row["truncated"] in (True, False)
        assert row["rewards"] == float(row["response"] == row["answer"])
    assert "accuracy after" in ppo.output
    assert str(ppo.folder) in ppo.output
    assert f"hybridflow evaluate runs/{ppo.folder.name}" in ppo.output


def test_the_run_folder_tells_what_happened(ppo: Ran) -> None:
    record = json.loads((ppo.folder / "run.json").read_text())
    assert (record["format"], record["status"], record["steps"], record["error"]) == (1, "ended", 4, None)
    assert list(record["accuracy"].values()) == ppo.accuracy
    events = [json.loads(line) for line in (ppo.folder / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [
        ("start", 0),
        ("validation", 0),
        ("validation", 4),
        ("checkpoint", 4),
        ("end", 4),
    ]
    logs = {file.name: file.read_text() for file in (ppo.folder / "logs").iterdir()}
    assert sorted(logs) == ["driver.log", "main-0.log", "main-1.log"]
    assert {"dead_reward", "kl_blow_up"} <= {*events[0]["alarms"]}
    address, process = events[0]["processes"]["main"][1]
    assert address == "127.0.0.1" and f"process {process} is rank 1 of pool main" in logs["main-1.log"]
    assert "actor: built on rank 1 of 2 ranks" in logs["main-1.log"] and "starting actor on pool" in logs["driver.log"]


def test_where_the_time_went_adds_up(ppo: Ran) -> None:
    record = json.loads((ppo.folder / "run.json").read_text())
    spent = record["spent"]
    assert spent["steps"] == pytest.approx(sum(step["timing_s/step"] for step in ppo.steps), abs=0.2)
    assert min(spent["start"], spent["validations"], spent["saves"]) > 0
    assert spent["detection"] == spent["restart"] == spent["lost_work"] == 0
    assert record["goodput"] == pytest.approx(spent["steps"] / sum(spent.values()), abs=0.01)
    assert ppo.steps[-1]["perf/goodput"] < 1 and "% of " in ppo.output.partition("goodput")[2]
    start = json.loads((ppo.folder / "events.jsonl").read_text().splitlines()[0])
    assert 0 < start["pools"]["main"] < start["seconds"] < spent["start"] + 1


def test_idle_time_is_what_no_rank_of_the_pool_worked(ppo: Ran, apart: Ran) -> None:
    assert all(0 <= step["timing_s/idle/main"] < 0.5 * step["timing_s/step"] for step in ppo.steps)
    for step in apart.steps:  # one of the two waits for the other
        assert step["timing_s/idle/train"] > 0.5 * step["timing_s/generate"]
        assert 0 < step["timing_s/idle/rollout"] < step["timing_s/step"]


def test_a_profiled_step_leaves_a_trace_of_each_rank_with_a_model(apart: Ran) -> None:
    """Both passes of Megatron on the ranks that train, vLLM's operators on the one that generates."""
    assert apart.traces == ["step-1-rollout-0", "step-1-train-0", "step-1-train-1"]
    for rank in (0, 1):
        names = apart.traced(f"step-1-train-{rank}")
        assert {"actor.send_weights", "actor.compute_log_prob", "actor.update_actor", "aten::mm"} <= names
        assert any(name.endswith("Backward0") for name in names)
        assert not any(name.startswith("vllm::") for name in names)
    names = apart.traced("step-1-rollout-0")
    assert {"rollout.receive_weights", "vllm::unified_attention_with_output"} <= names
    # Rows are streamed where graders, which have a pool of their own, grade the first of them meanwhile.
    assert names & {"rollout.generate_sequences", "rollout.stream_sequences"}
    assert not any(name.endswith("Backward0") for name in names)


def test_the_share_of_a_device_is_measured_where_it_is_said_what_it_can_do(ppo: Ran, apart: Ran) -> None:
    peak = read_hardware("cpu").flops[DType.float32] / 1e12
    for step in apart.steps:
        assert 0 < step["actor/tflops_per_rank"] < 10 * peak
        assert step["actor/mfu"] == pytest.approx(step["actor/tflops_per_rank"] / peak)
    for step in ppo.steps[1:]:
        assert step["actor/tflops_per_rank"] > 0 < step["critic/tflops_per_rank"]
        assert not {"actor/mfu", "critic/mfu", "reference/tflops_per_rank"} & {*step}
    assert "actor/tflops_per_rank" not in ppo.steps[0], "only the critic learns"


def test_tensorboard_has_its_metrics(ppo: Ran) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(ppo.folder / "tensorboard"))
    events.Reload()
    rewards = [(event.step, event.value) for event in events.Scalars("reward/mean")]
    assert rewards == [(step, np.float32(line["reward/mean"])) for step, line in enumerate(ppo.steps)]


def test_plain_transformers_gets_the_same_accuracy(ppo: Ran) -> None:
    folder = ppo.folder / "model"
    assert greedy_accuracy(folder, 64) == ppo.accuracy[-1]


def test_generation_on_a_pool_of_its_own(apart: Ran) -> None:
    """Two training ranks, one rollout rank: an old or misplaced weight would show in the log-probs."""
    assert apart.status == 0, apart.output
    assert "starting rollout on pool rollout: 1 rank, tensor 1" in apart.output
    assert [step["rollout/version_lag_max"] for step in apart.steps] == [0, 0, 0]
    for step in apart.steps[1:]:  # before the first a validation has refitted
        assert step["timing_s/refit_proof"] > 0 == step["refit/repeated"]
    for step in apart.steps:
        assert step["actor/rollout_log_prob_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0
        assert not any(name.startswith("critic/value") for name in step), "GRPO has no critic"


def test_validations_sample_several_answers_keep_them_and_the_best_checkpoint(apart: Ran) -> None:
    """The numbers in `metrics.jsonl` are those of the answers in `validation/`."""
    last = apart.validations[-1]
    for folder, prefix in ((apart.folder / "validation", ""), (apart.folder / "validation" / "small", "small/")):
        rows = [row for row in answers_in(folder) if row["step"] == 3]
        of_question = [
            [row["rewards"] for row in rows if row["sample_id"] == id] for id in {r["sample_id"] for r in rows}
        ]
        assert {len(grades) for grades in of_question} == {2}, "both answers to a question are there"
        assert last[f"validation/{prefix}accuracy"] == np.mean([grade for grades in of_question for grade in grades])
        assert last[f"validation/{prefix}pass@2"] == pytest.approx(np.mean([max(grades) for grades in of_question]))
    measured = {line["step"]: line["validation/pass@2"] for line in apart.validations if line["step"]}
    best = max(measured, key=lambda step: (measured[step], -step))
    assert (apart.folder / "checkpoints/BEST").read_text() == f"step-{best:06d}\n"


def test_an_exported_checkpoint_is_the_model_and_evaluates_as_the_run_validated(
    apart: Ran, place: Path, forks: dict[str, str]
) -> None:
    """The folder of a model and a checkpoint of the run, side by side: both are its last step, so they are alike."""
    out = apart.folder.parent / "exported"
    process = start(["export", f"{apart.folder}:3", "--out", str(out)], place, **forks)
    assert process.communicate(timeout=300)[0] and process.returncode == 0
    assert (out / "model.safetensors").read_bytes() == (apart.folder / "model/model.safetensors").read_bytes()
    process = start(["evaluate", str(out), str(apart.folder), *ONE_RANK], place, **forks)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert ": +0.000 ± 0.000 in accuracy" in output


def test_several_graders_are_metrics_and_columns_of_their_own(apart: Ran) -> None:
    """Accuracy is the first's, as `rewards` are, for the second weighs nothing."""
    for step in apart.steps:
        assert step["reward/exact/mean"] == step["reward/mean"] and 0 <= step["reward/has_seven/mean"] <= 1
    rows = answers_in(apart.folder / "rollouts")
    assert rows
    for row in rows:
        assert row["grades"] == {"exact": row["rewards"], "has_seven": float("7" in row["response"])}


def test_tokens_that_are_written_have_the_log_probs_of_training(apart: Ran) -> None:
    """GRPO has no pass that gives them: they are those of its first update, and of the pass for its second."""
    rows = [row for row in answers_in(apart.folder / "rollouts") if "by_token" in row]
    assert {row["step"] for row in rows} == {0, 1, 2}
    furthest = {step["step"]: step["actor/rollout_log_prob_diff_max"] for step in apart.steps}
    for row in rows:
        tokens = row["by_token"]
        assert len(tokens["old_log_probs"]) == len(tokens["text"]) > 0
        apart_by = np.abs(np.subtract(tokens["old_log_probs"], tokens["rollout_log_probs"]))
        assert apart_by.max() <= furthest[row["step"]] + 2e-5, "but for the digits that are written"


def answers_in(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("rank*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


STREAMING = """
from hybridflow import dispatch
from hybridflow.algorithms import algorithms
from hybridflow.algorithms.grpo import GRPO

@algorithms.register("streaming_grpo")
class StreamingGRPO(GRPO):
    def step(self, prompts):
        graded = [part | self.reward.compute_reward(part) for part in self.stream(prompts)]
        print("in", len(graded), "parts")
        rollout = dispatch.concat(graded)
        rollout |= self.actor.compute_log_prob(rollout)
        rollout |= self.reference.compute_ref_log_prob(rollout)
        rollout |= self.advantage(rollout)
        for rows in self.minibatches(rollout):
            self.actor.update_actor(rows)
        return rollout
"""


OWN_SCORES = """
from hybridflow.batch import Batch
from hybridflow.workers import workers
from hybridflow.workers.actor import ActorWorker

@workers.register("eighth_below")
class EighthBelow(ActorWorker):
    def compute_log_prob(self, rollout):
        ours = super().compute_log_prob(rollout).ragged("old_log_probs")
        return Batch(old_log_probs=ours.like(ours.values - 0.125))
"""


@pytest.mark.slow
def test_a_workers_own_log_probs_are_those_that_updates_begin_with(place: Path, launch: Launch, warm: Ran) -> None:
    """In settings in which ours has no pass for them, and the ratio of a step's one update is 1."""
    (place / "own_scores.py").write_text(OWN_SCORES)
    worker = ("plugins=[own_scores]", "actor.worker=eighth_below", *ONE_RANK)
    own = ("algorithm=grpo", "algorithm.minibatches=1", "algorithm.prompts_per_step=16", *SIZES)
    ran = launch("train", "own_scores", "experiment=addition", *own, *worker)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 3
    for step in ran.steps:
        assert "timing_s/compute_log_prob" in step
        assert step["actor/approx_kl"] == pytest.approx(-0.125, abs=1e-4)
        assert step["actor/ratio"] == pytest.approx(math.exp(0.125), abs=1e-4)
    tokens = [row["by_token"] for row in answers_in(ran.folder / "rollouts") if "by_token" in row]
    assert tokens
    for row in tokens:
        below = np.subtract(row["rollout_log_probs"], row["old_log_probs"])
        assert below == pytest.approx(np.full(len(below), 0.125), abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_learns_to_heed_what_it_is_told(launch: Launch) -> None:
    """From nothing: who does not heed it finds four of ten numbers at most."""
    ran = launch("train", "guess", "experiment=guess", "trainer.steps=200", "trainer.stop_at_accuracy=0.8")
    assert ran.status == 0, ran.output
    assert ran.accuracy[0] <= 0.4 and ran.accuracy[-1] >= 0.8
    assert all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for step in ran.steps), "it trains on what it sampled"
    assert all(step["environment/failed_share"] == 0 and step["environment/turns"] <= 4 for step in ran.steps)
    assert all(0 < step["rollout/masked_fraction"] < 0.5 for step in ran.steps)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_policy_learns_to_call_a_tool_for_what_it_cannot_do(
    place: Path, launch: Launch, forks: dict[str, str]
) -> None:
    """The warm-up shows how, and not that it should; GRPO finds that out. Without the tool neither model can add."""
    assert model.run(["addition", "--calls", "--out", str(place / "models/addition_tools")]) == 0
    sizes = ("trainer.validation_prompts=512", "rollout.max_concurrent_rows=512")
    warm = launch("sft", "addition_tools_warmup", "experiment=addition_tools_warmup", *sizes)
    assert warm.status == 0, warm.output
    ran = launch("train", "addition_tools", "experiment=addition_tools", *sizes)
    assert ran.status == 0, ran.output
    assert 0.25 <= ran.accuracy[0] <= 0.65 and ran.accuracy[-1] >= 0.9
    assert all(step["actor/rollout_log_prob_diff_max"] < 1e-4 for step in ran.steps), "it trains on what it sampled"
    assert ran.steps[0]["environment/calls"] <= 0.65 and ran.steps[-1]["environment/calls"] >= 0.9
    models = ("runs/addition_tools_warmup", "runs/addition_tools")
    process = start(["evaluate", *models, "environment.options.tools=[]"], place, **forks)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    for name in models:
        alone = json.loads((place / "runs/evaluate" / name.replace("/", "-") / "evaluation.json").read_text())
        assert alone["statistics"]["accuracy"] <= 0.1


@pytest.mark.slow
def test_a_pipeline_generates_and_rows_are_graded_as_they_finish(place: Path, launch: Launch, warm: Ran) -> None:
    (place / "streaming.py").write_text(STREAMING)
    algorithm = ("algorithm=grpo", "plugins=[streaming]", "algorithm.name=streaming_grpo")
    cut = ("actor.parallel.tensor=1", "actor.parallel.pipeline=2", "rollout.parallel.pipeline=2")
    sizes = ("algorithm.prompts_per_step=16", *SIZES)
    ran = launch("train", "pipeline", "experiment=addition", *algorithm, *cut, *sizes)
    assert ran.status == 0, ran.output
    assert len(ran.steps) == 3 and all(step["actor/rollout_log_prob_diff_max"] < 1e-5 for step in ran.steps)
    parts = [int(line.split()[1]) for line in ran.output.splitlines() if line.endswith(" parts")]
    assert len(parts) == 3 and min(parts) > 1
    files = sorted((ran.folder / "rollouts").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(rows) == 3 * 16 * 8 and all(row["rewards"] == float(row["response"] == row["answer"]) for row in rows)
    assert 0 < sum(row["rewards"] for row in rows) < len(rows)


def test_a_sweep_runs_one_job_after_the_other(judges: Ran) -> None:
    """What an earlier run of that name has left is set aside. A run with no steps to take has done what it should; one
    whose loss has no gradient has not, which it says at its end, when its model is saved."""
    assert judges.status == 1 and "1 of 4 jobs failed: 2" in judges.output, judges.output
    for job, steps in enumerate((24, 20, 1, 0)):
        assert len(Ran(0, "", judges.folder / str(job)).steps) == steps
        assert (judges.folder / str(job) / "model" / "model.safetensors").is_file()
    assert judges.output.count("the loss of the reward_model had no gradient in any of 1 updates") == 1
    assert (judges.folder / "3/earlier-1/metrics.jsonl").read_text() == "{}\n"
    table = [" ".join(line.replace("│", " ").split()) for line in judges.output.partition("sweep\n")[2].splitlines()]
    outcomes = [line.rpartition(" ")[0].rstrip(" .0123456789") for line in table if line[:1].isdigit()]
    failed = "2 experiment=flat failed (1)"
    assert outcomes == ["0 experiment=reward done", "1 experiment=cost done", failed, "3 experiment=idle done"]


def greedy_accuracy(folder: Path, rows: int) -> float:
    """Accuracy on the first held-out sums, by transformers' own generate."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    batch = Addition(tokenizer, zero_pad=True, reverse_answer=True).rows("held_out", np.arange(rows))
    right = 0
    for prompt, answer in zip(batch.ragged("prompt_ids"), batch.dense("answer"), strict=True):
        out = model.generate(torch.tensor(prompt)[None], max_new_tokens=8, do_sample=False)[0, len(prompt) :]
        right += tokenizer.decode(out, skip_special_tokens=True) == answer
    return right / rows
