"""`hybridflow plan`: every rank is in its picture, and nothing heavy is asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from hybridflow.algorithms import algorithms
from hybridflow.algorithms.grpo import GRPO
from hybridflow.batch import Batch, BatchRef
from hybridflow.cli import main, plan_picture, plan_text
from hybridflow.cli.names import names_for
from hybridflow.cli.plan import Asked, composed, plan_of
from hybridflow.cli.plan_text import lines_of
from hybridflow.config.key_suggestions import all_keys
from hybridflow.controller import put
from hybridflow.parallel.layout import Layout
from hybridflow.placement.node_bundles import Bundles
from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.slot_grid import blocks_of, packed_nodes, runs_of

ADDITION = ("experiment=addition", "actor.model.path=model", "run.root=runs")


@pytest.fixture
def plan(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `hybridflow plan` on the addition experiment, which must succeed; what it prints."""

    def ask(*arguments: str) -> str:
        assert main(["plan", *ADDITION, *arguments]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return ask


def drawn(layout: Layout, per_node: int = 8) -> list[str]:
    """The lines of a picture of a pool with an actor alone."""
    arrangement = Arrangement({"main": layout.size}, {"actor": Seat("main", layout)})
    runs = runs_of([*blocks_of(arrangement, packed_nodes({"main": Bundles(layout.size)}, per_node))])
    return [line.plain for line in plan_picture.lines_of(arrangement, runs)]


def test_the_picture_says_where_every_rank_is() -> None:
    layout = Layout(2, 2, 2, generation=(1, 1))
    lines = drawn(layout)
    assert lines[0] == "pool main: 8 slots on node 0"
    assert lines[1].split() == ["node", "0", "slot", *map(str, range(8))]
    found = re.findall(r"d(\d+) p(\d+) t(\d+)", lines[2].partition("d2")[2])
    assert [tuple(map(int, at)) for at in found] == [(at.dp, at.pp, at.tp) for at in layout.coordinates]
    replicas = re.findall(r"r(\d+)", lines[3].partition("replicas")[2])
    assert [*map(int, replicas)] == [at.dp for at in layout.generation_coordinates]


def test_of_many_nodes_one_is_drawn_and_the_others_follow() -> None:
    lines = drawn(Layout(4, 1, 32, generation=(2, 1)))
    assert len(lines) <= 8 and max(map(len, lines)) <= 120
    assert "  … nodes 1–15 (slots 8–127): as node 0; each further node: actor d+2, actor generation r+4" in lines


@pytest.mark.parametrize("slots", [1, 2, 16, 72, 128])
def test_a_picture_of_up_to_128_devices_is_a_screen(slots: int) -> None:
    for per_node in (8, 72):
        lines = drawn(Layout(data=slots), per_node)
        assert len(lines) <= 30 and max(map(len, lines)) <= 120


def test_a_narrow_terminal_has_fewer_slots_beside_each_other(workplace: Path) -> None:
    job = composed(Asked("train", None, (*ADDITION, "placement.pools.main=8"), None, None, False))
    plan = plan_of(job, None)
    for width, ends in ((200, ["7"]), (60, ["3", "7"])):
        lines = [line.plain for line in lines_of(plan, width)]
        picture = lines[3 : lines.index(plan_picture.LEGEND)]
        assert [line.split()[-1] for line in picture if line.startswith("  node")] == ends
        assert max(map(len, picture)) <= width


def test_the_drawing_has_the_names_as_text(plan: Any) -> None:
    Path("mine/placement").mkdir(parents=True)
    Path("mine/placement/odd.yaml").write_text('pools: {"a<b&c\\e[2J": 2}\n')
    out = plan("--svg", "plan.svg", "-cd", "mine", "placement=odd")
    assert "\x1b" not in out
    text = Path("plan.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    shown = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("a<b&c\\x1b[2J" in (line or "") for line in shown)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "") and "<style" not in text


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("nowhere/plan.svg", "--svg nowhere/plan.svg: the folder {here}/nowhere does not exist"),
        ("plan.png", "--svg plan.png: a drawing's name ends in .svg"),
        ("kept.svg", "--svg kept.svg is there already; give another name, or --force to replace it"),
    ],
)
def test_a_drawing_that_cannot_be_written_is_refused_before_the_settings_are_read(
    workplace: Path, capsys: pytest.CaptureFixture[str], file: str, told: str
) -> None:
    Path("kept.svg").write_text("mine")
    assert main(["plan", "no.such.key=1", "--svg", file]) == 2
    assert capsys.readouterr() == ("", f"hybridflow plan: {told.format(here=Path.cwd())}\n")
    assert Path("kept.svg").read_text() == "mine"


def test_a_placement_file_of_a_section_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("found.yaml").write_text("# @package actor\nmax_tokens_per_rank: 64\n")
    assert main(["plan", *ADDITION, "placement=found.yaml"]) == 2
    assert "found.yaml: its first line says `# @package actor`, but a placement" in capsys.readouterr().err


def test_json_has_every_rank(plan: Any) -> None:
    found = json.loads(plan("--json", "placement=split"))
    assert found["pools"]["policy"] == {"slots": 2, "device": "cpu", "nodes": [0, 0]}
    assert found["roles"]["actor"]["ranks"] == [
        {"tp": 0, "pp": 0, "dp": 0, "cp": 0},
        {"tp": 1, "pp": 0, "dp": 0, "cp": 0},
    ]
    assert found["roles"]["actor"]["generation"] == {"tensor": 1, "pipeline": 1, "replicas": 2}
    assert found["roles"]["critic"]["pool"] == "judges"


def test_bad_settings_are_the_errors_of_train(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("actor.parallel.tensor=3", "actor.paralel.tensor=1", "placement.roles.actor=nowhere", "a=1,2"):
        told = []
        for command in (["plan"], ["train", "--check"]):
            assert main([*command, *ADDITION, wrong]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            told.append(err.replace("hybridflow plan", "hybridflow train"))
        assert told[0] == told[1]


NAMED = {
    "train": [
        "algorithm.advantage.name",
        "algorithm.policy_loss.name",
        "algorithm.policy_loss.aggregate",
        "algorithm.policy_loss.correction.name",
        "algorithm.policy_loss.kl_estimator",
        "algorithm.reward_kl_control.name",
        "algorithm.reward_kl_estimator",
        "algorithm.reward_shaping.name",
        "algorithm.rollout_filter.name",
        "actor.engine",
        "actor.worker",
        "critic.engine",
        "critic.worker",
        "environment.name",
        "reference.engine",
        "reference.worker",
        "reward.grader",
        "rollout.engine",
        "task.name",
        "trainer.schedule",
    ],
    "train algorithm.name=x": ["algorithm.name"],
    "train algorithm=grpo": ["reward.accuracy_grader", "reward.worker"],
    "train algorithm=safe_rlhf": ["cost.grader", "cost.worker", "cost_critic.engine", "cost_critic.worker"],
    "train reward.worker=model reward.model.path=model": ["reward.engine"],
    "train algorithm=safe_rlhf cost.worker=cost_model cost.model.path=model": ["cost.engine"],
    "train placement=rollout_pool trainer.schedule=async": ["trainer.sampler"],
    "train-reward algorithm=reward_model task=addition_pairs": [
        "algorithm.pair_loss",
        "reward_model.engine",
        "reward_model.worker",
    ],
}
"""Settings that name something registered, by the command that heeds them."""


def test_these_are_all_settings_that_name_something() -> None:
    assert sorted(chain.from_iterable(NAMED.values())) == sorted(key for key in all_keys() if names_for(key))


@pytest.mark.parametrize("run", NAMED)
def test_a_name_that_nobody_registers_is_one_error_of_every_command(
    run: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subcommand, *settings = run.split()
    told = errors_of_all(subcommand, [*settings, *(f"{key}=no_such" for key in NAMED[run])], capsys)
    for key in NAMED[run]:
        assert len([line for line in told if line.startswith(f"{key}: ") and "'no_such'" in line]) == 1, key


@pytest.mark.parametrize(
    "settings",
    [
        ("trainer.metric_sinks=[no_such]",),
        ("+trainer.sink_options.no_such={}",),
        ("+trainer.validation_sets.more.name=no_such",),
        ("+algorithm.reward_shapings.no_such={}",),
        ("+reward.graders.no_such=1.0",),
        ("+placement.roles.no_such=main",),
        ("placement.roles.critic=no_such",),
        ("task.name=mixture", "task.options={sources:{one:{name:no_such}}}"),
        ("environment.name=tools", "environment.options={tools:[no_such]}"),
        ("trainer.hardware=no_such",),
    ],
    ids=" ".join,
)
def test_so_is_one_in_a_list_or_a_key(
    settings: tuple[str, ...], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("no_such" in line for line in errors_of_all("train", settings, capsys))


def errors_of_all(subcommand: str, settings: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `plan`, `map` and `train --check` say of settings, which is the same."""
    told = []
    for command in (["plan", subcommand], ["map", subcommand], [subcommand, "--check"]):
        assert main([*command, *ADDITION, *settings]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        told.append([line.strip() for line in re.sub("^hybridflow [a-z-]+: *", "", err).splitlines() if line])
    assert told[0] == told[1] == told[2]
    return told[0]


class Putting(GRPO):
    """A flow that puts rows of its own into the store."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        rollout = super().rollout(prompts)
        return rollout | put(Batch(bonus=np.zeros(len(rollout), np.float32)))


class Reading(GRPO):
    """A flow that reads rows."""

    def rollout(self, prompts: BatchRef) -> BatchRef:
        self.generate(prompts).select_columns(["response_ids"]).get()
        return prompts


def test_a_flow_that_puts_rows_needs_no_cluster_and_one_that_reads_some_is_told_of(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(algorithms._components, "putting", Putting)
    monkeypatch.setitem(algorithms._components, "reading", Reading)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # a test of this process may have one
    assert "a step takes" in plan("algorithm=grpo", "algorithm.name=putting", "hardware=h100_80g_8x")
    out = plan("algorithm=grpo", "algorithm.name=reading", "hardware=h100_80g_8x")
    assert "pool main: 2 slots on node 0" in out and "a step takes" not in out
    assert "warning: algorithm.name: the flow of Reading cannot be traced without a run: it reads the rows that " in out


def test_warnings_of_train_are_told_too(plan: Any) -> None:
    out = plan("+placement.pools.spare=1", "hardware=h100_80g_8x")
    assert "warning: placement.pools.spare: no role is placed on it, so it is not started; see placement.roles\n" in out
    assert "take turns" not in plan("placement.pools.main=1024", "hardware=h100_80g_8x"), "that is of this machine"


def test_a_model_needs_no_weights_to_be_planned(plan: Any) -> None:
    Path("model/model.safetensors").unlink()
    assert "pool main" in plan()


def test_hardware_that_there_is_not_has_its_near_misses(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, told in {
        "h100": "did you mean h100_80g_8x?",
        "h200_141g_8": "did you mean h200_141g_8x",
        "mine.yaml": "mine.yaml does not exist",
        "": "nothing is named ''; There is a100_80g_8x",
    }.items():
        assert main(["plan", *ADDITION, f"hardware={given}"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and told in err


def test_a_plan_for_other_hardware_is_for_its_nodes(plan: Any) -> None:
    found = json.loads(plan("--json", "hardware=h100_80g_8x", "placement.pools.main=16"))
    assert found["pools"]["main"]["device"] == "gpu" and found["pools"]["main"]["nodes"] == [0] * 8 + [1] * 8
    assert found["hardware"]["name"] == "h100_80g_8x" and "NVIDIA" in found["hardware"]["source"]
    assert {"actor.generate_sequences", "actor.update_actor", "sync_weights"} <= {*found["step"]["phases"]}
    assert sum(found["bytes"]["weight_sync"].values()) > 0 and "actor.update_actor" in found["bytes"]["rows"]
    assert found["step"]["idle"]["main"] >= 0 and found["notes"]


def test_of_gpus_that_nobody_describes_memory_is_told_and_no_seconds(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridflow.cli.plan.local_gpus", lambda: 2)
    out = plan()
    assert plan_text.UNKNOWN in out and "a step takes" not in out and "memory of a slot of pool main\n" in out
    found = json.loads(plan("--json"))
    assert found["hardware"] is None and found["step"] is None and found["pools"]["main"]["device"] == "gpu"
    assert main(["plan", *ADDITION, "placement.pools.main=4"]) == 2, "more slots than GPUs"


def test_pools_over_nodes_and_what_others_leave(plan: Any) -> None:
    nodes = ("placement.pools.main.nodes=2", "placement.pools.main.slots=4")
    found = json.loads(plan("--json", "hardware=h100_80g_8x", *nodes))
    assert found["pools"]["main"]["nodes"] == [0] * 4 + [1] * 4
    split = ("placement=split", "placement.pools.policy=10", "placement.pools.judges=auto")
    found = json.loads(plan("--json", "hardware=h100_80g_8x", *split))
    assert [found["pools"][name]["slots"] for name in ("policy", "judges")] == [10, 6]


def test_every_call_of_a_step_is_a_line(plan: Any) -> None:
    out = plan("placement=rollout_pool", "algorithm=grpo")
    for call in ("sync_weights", "actor.generate_sequences", "reward.compute_reward", "actor.update_actor"):
        assert re.search(rf"^  (train|rollout) +{call} +█", out, re.MULTILINE)
    assert re.search(r"^a step takes .* tokens a second$", out, re.MULTILINE)
    assert re.search(r"^bytes of a step, weight sync: .*iB \(actor → generation .*\)$", out, re.MULTILINE)
    assert re.search(r"^bytes of a step, rows: .*actor.update_actor", out, re.MULTILINE)
    left_out = re.findall("^ *left out: (.*?):", out, re.MULTILINE)
    assert left_out == ["algorithm.epochs"]  # old log-probs of a first update
    assert "left out: algorithm.reward_kl_coef: reference is not started" in plan(
        "algorithm=grpo", "algorithm.policy_loss.kl_coef=0"
    )


SCRIPT = """
import sys, time
import hybridflow.cli.plan, hybridflow.cli.plan_svg, hybridflow.algorithms.ppo, rich.console
from hybridflow.cli import main
begin = time.process_time()
status = main(sys.argv[1:])
took = time.process_time() - begin
heavy = [name for name in ("torch", "vllm", "ray", "megatron", "transformers") if name in sys.modules]
print(heavy, status, took, file=sys.stderr)
"""


@pytest.mark.processes
def test_it_asks_nothing_heavy_and_is_quick(workplace: Path) -> None:
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "plan", *ADDITION, "--svg", "plan.svg"],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heavy, status, took = done.stderr.splitlines()[-1].rsplit(" ", 2)
    assert (heavy, status) == ("[]", "0")
    assert float(took) < 3.0, "seconds of computing; about 0.6 on an idle core"
