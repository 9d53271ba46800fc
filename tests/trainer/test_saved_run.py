"""A run on disk: where its models are, and what is exported of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hybridflow import interrupt, preflight
from hybridflow.cli import main
from hybridflow.config.compose import resolved_yaml
from hybridflow.errors import ConfigError
from hybridflow.models import read_shape
from hybridflow.tasks.tokenizer import end_ids
from hybridflow.trainer.checkpoint_store import CheckpointError, Checkpoints, Manifest, entries
from hybridflow.trainer.export import export
from hybridflow.trainer.model_card import card
from hybridflow.trainer.resume import versions
from hybridflow.trainer.saved_run import find, is_run
from tests.conftest import GetModel


@pytest.fixture
def run(tmp_path: Path, tiny: GetModel) -> Path:
    """The folder of a run that has ended, with two checkpoints, of which the first was best; they have no tensors."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "model").symlink_to(tiny())
    config = preflight.load("train", ["experiment=addition", "algorithm=grpo", f"actor.model.path={tiny()}"])
    (folder / "config.yaml").write_text(resolved_yaml(config))
    lines = [{"step": step, "validation/accuracy": step / 100, "validation/mean_grade": None} for step in (0, 20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, {"step": 39})))
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in (20, 40):
        (checkpoints.begin(step) / "config.yaml").write_text(resolved_yaml(config))
        checkpoints.commit(step, {})
        checkpoints.keep(2, best=20)
    return folder


def test_a_place_is_a_run_or_one_of_its_checkpoints(run: Path) -> None:
    assert (find(str(run)).checkpoint, find(str(run)).steps, find(str(run)).role) == (None, 40, "actor")
    steps = {which: find(f"{run}:{which}").steps for which in ("20", "40", "best", "latest")}
    assert steps == {"20": 20, "40": 40, "best": 20, "latest": 40}
    by_path = find(str(run / "checkpoints/step-000020"))
    assert (by_path.steps, by_path.run, by_path.name) == (20, run, f"{run}:20")
    assert [line["step"] for line in by_path.validations] == [0, 20]
    assert is_run(str(run)) and is_run(f"{run}:20") and not is_run(str(run / "model"))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nowhere", "there is no run folder nowhere"),
        ("{run}:30", "there is no such checkpoint; its checkpoints are 20, 40"),
        ("{run}:soon", "there is no such checkpoint; its checkpoints are 20, 40"),
        ("{run}:" + "9" * 200, "there is no such checkpoint; its checkpoints are 20, 40"),
        ("{run}/model", "there is no run folder"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(run: Path, place: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find(place.format(run=run))


def test_a_run_that_has_not_ended_names_its_newest_checkpoint(run: Path) -> None:
    (run / "model").unlink()
    with pytest.raises(ConfigError, match=f"has no model yet; its newest checkpoint is {run}:40"):
        find(str(run))


def test_settings_that_cannot_be_read_are_told(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(text) | {"trainerr": {}}))
    with pytest.raises(ConfigError, match=r"config.yaml: not the settings of a run of this version: .*trainerr"):
        find(str(run))
    for wrong, said in (
        ({"plugins": 3}, r"plugins: a list of module names was expected, .* not 3 \(.*config.yaml\)"),
        ({"algorithm": {"name": "gone"}}, r"config.yaml: algorithm.name: 'gone' is not known"),
    ):
        (run / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(text) | wrong))
        with pytest.raises(ConfigError, match=said):
            find(str(run))


@pytest.mark.parametrize("name", [b"", b"../../elsewhere", b"\xff\x00", b"step-000030"])
def test_the_best_is_one_of_the_checkpoints(run: Path, name: bytes) -> None:
    (run / "checkpoints/BEST").write_bytes(name)
    with pytest.raises(ConfigError, match=r"checkpoints/BEST names '.*', which is no checkpoint; its checkpoints are"):
        find(f"{run}:best")


def test_lines_of_metrics_that_are_none_are_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"validation/accuracy": 1}\n{"step": "a", "validation/accuracy": 1}\n')
    assert find(str(run)).steps == 40


def test_an_export_is_a_model_that_transformers_loads(run: Path, tmp_path: Path, tiny: GetModel) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out)]) == 0
    exported = AutoModelForCausalLM.from_pretrained(out)
    source = AutoModelForCausalLM.from_pretrained(tiny())
    for name, tensor in source.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor), name
    assert AutoTokenizer.from_pretrained(out).get_vocab() == AutoTokenizer.from_pretrained(tiny()).get_vocab()
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ([ends] if isinstance(ends, int) else ends) == end_ids(tiny())


def test_large_weights_are_cut_into_files_with_an_index(run: Path, tmp_path: Path, tiny: GetModel) -> None:
    whole = load_file(tiny() / "model.safetensors")
    largest = max(tensor.nbytes for tensor in whole.values())
    size = export(find(str(run)), tmp_path / "out", max_file_bytes=largest)
    files = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 1 and size == sum(tensor.nbytes for tensor in whole.values())
    assert all(file.name.endswith(f"-of-{len(files):05d}.safetensors") for file in files)
    parts = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert parts.keys() == whole.keys() and all(torch.equal(parts[name], whole[name]) for name in whole)
    assert read_shape(tmp_path / "out").layers == read_shape(tiny()).layers
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() == sum(
        map(torch.numel, whole.values())
    )


def test_what_is_there_already_stays(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "link").symlink_to("nowhere")
    for place, said in (("link", "there is something already"), ("out/mine.txt/below", "mine.txt is no folder")):
        with pytest.raises(ConfigError, match=f"--out .*{place}: .*{said}"):
            export(find(str(run)), tmp_path / place)
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "model.safetensors, of 9 bytes, is not whole, or no safetensors"),
        ("tokenizer.json", "its tokenizer cannot be read"),
        ("generation_config.json", "generation_config.json:1: not JSON"),
        ("config.json", "config.json:1: not JSON"),
    ],
)
def test_a_model_that_cannot_be_read_is_told_by_its_file(run: Path, tmp_path: Path, name: str, said: str) -> None:
    whole = (run / "model").resolve()
    (run / "model").unlink()
    shutil.copytree(whole, run / "model")
    (run / "model" / name).write_bytes(b"{cut shor")
    with pytest.raises(ConfigError, match=rf"mine cannot be exported: .*{said}"):
        export(find(str(run)), tmp_path / "out")
    (run / "model" / name).unlink()
    if name in ("model.safetensors", "tokenizer.json"):
        with pytest.raises(ConfigError, match=rf"mine cannot be exported: .*{name}"):
            export(find(str(run)), tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_the_card_says_what_made_the_model(run: Path) -> None:
    text = card(find(str(run)))
    for words in (
        "algorithm: grpo (arXiv 2402.03300)",
        "task: `addition`",
        "| accuracy | 0.400 |",
        "steps: 40",
        "grader: `exact`",
    ):
        assert words in text
    assert "mean_grade" not in text, "a number that was not finite is not told"


def test_the_card_says_how_the_model_was_asked_and_graded(run: Path) -> None:
    saved = find(str(run))
    saved.config.task.system_prompt = "Be brief."
    saved.config.task.as_chat = True
    saved.config.actor.model.path = "runs/warm/model"
    saved.config.task.options = {"split": None, "columns": {"prompt": "q", "answer": None}, "path": "a.jsonl"}
    saved.config.reward.graders = {"exact": 1.0, "brevity": 0.1}
    text = card(saved)
    assert "from the model of the run `warm`." in text
    assert '`{"columns": {"prompt": "q"}, "path": "a.jsonl"}`' in text
    assert '* prompts: a text is a user\'s message; system prompt "Be brief."\n' in text
    assert "`exact` (1), `brevity` (0.1); accuracy is by `exact`" in text


def test_an_export_that_sigterm_ends_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupt.check()

    before = {*tmp_path.iterdir()}
    monkeypatch.setattr(interrupt, "_state", interrupt._State())  # a cluster that tests share heeds signals already
    monkeypatch.setattr("hybridflow.models.model_export.write_config", stopped)  # the weights are written by then
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    assert {*tmp_path.iterdir()} == before


def test_a_checkpoint_that_was_changed_is_not_exported(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints/step-000040/config.yaml").open("a").write("# more\n")
    with pytest.raises(CheckpointError, match=r"config.yaml has \d+ bytes"):
        export(find(f"{run}:40"), tmp_path / "out")


def test_one_that_has_another_index_is_refused_as_bad_input(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints/step-000040"
    (folder / "actor/tensors").mkdir(parents=True, exist_ok=True)
    (folder / "actor/tensors/.metadata").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (folder / "manifest.json").write_text(Manifest(40, versions(), entries(folder)).to_json())
    with pytest.raises(CheckpointError, match=r"asks for os\.system"):
        export(find(f"{run}:40"), tmp_path / "out")
