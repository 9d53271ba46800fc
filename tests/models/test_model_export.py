"""What an export writes beside the weights, and that it takes the place of an earlier one whole or not at all."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig

from hybridflow.models import Head, model_export
from hybridflow.models.model_export import begin, copy_extras, exported_config, finish
from hybridflow.models.score_head import is_scorer

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
OLD = {name: "old" for name in ("config.json", "tokenizer.json", "chat_template.jinja", *SHARDS)}
NEW = {name: "new" for name in ("config.json", "tokenizer.json", "model.safetensors")}
OTHERS = {"notes.md": "mine", "quantized/model.gguf": "mine"}


class Killed(BaseException):
    """Stands for the end of the process."""


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read_files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def export(folder: Path) -> None:
    write_files(begin(folder), NEW)
    finish(folder)


def test_nothing_of_a_former_export_survives_and_what_is_no_model_does(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    write_files(out, OLD | OTHERS)
    export(out)
    assert read_files(out) == NEW | OTHERS
    export(out)
    assert read_files(out) == NEW | OTHERS
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_a_first_export(tmp_path: Path) -> None:
    export(tmp_path / "runs" / "model")
    assert read_files(tmp_path / "runs" / "model") == NEW


def test_a_file_in_the_place_of_the_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(NotADirectoryError, match="model is a file"):
        export(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def dies_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before its `number`-th change of the disk."""
    left = [number]

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise Killed
            return change(*args, **kwargs)

        return run

    for name in ("rename", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(model_export, "_exchange", counted(model_export._exchange))


@pytest.mark.parametrize("exchanges", [True, False])
def test_whenever_it_is_killed_the_old_or_the_new_is_there_whole(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names cannot be exchanged at once, both are whole for a moment, and the next export goes on from it."""
    seen = set()
    for number in range(1, 40):
        out = tmp_path / str(number) / "model"
        write_files(out, OLD | OTHERS)
        with monkeypatch.context() as patch:
            if not exchanges:
                patch.setattr(model_export, "_exchange", lambda *_: False)
            dies_at(number, patch)
            try:
                export(out)
                break
            except Killed:
                pass
        places = [out] if exchanges or out.exists() else [model_export._former(out), model_export.beside(out)]
        for place in places:
            found = read_files(place).items() - OTHERS.items()
            assert dict(found) in (OLD, NEW), (number, found)
            seen.add(dict(found)["config.json"])
        export(out)
        assert read_files(out) == NEW | OTHERS, number
        assert [path.name for path in out.parent.iterdir()] == ["model"]
    else:
        raise AssertionError("it never came to its end")
    assert seen == {"old", "new"} and number > 10


def test_an_export_through_a_link_leaves_the_link(tmp_path: Path) -> None:
    write_files(tmp_path / "disk", OLD)
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    export((tmp_path / "model").resolve())
    assert (tmp_path / "model").is_symlink() and read_files(tmp_path / "model") == NEW


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_exchange_names(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def renameat2(self, *_: Any) -> int:
            model_export.ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(model_export.ctypes, "CDLL", lambda *_, **__: Library())
    write_files(tmp_path / "model", OLD)
    export(tmp_path / "model")
    assert read_files(tmp_path / "model") == NEW


def test_any_other_failure_of_the_exchange_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model_export._exchange(tmp_path / "a", tmp_path / "nowhere")


def test_what_does_not_belong_to_a_model_is_not_copied(tmp_path: Path) -> None:
    belongs = {
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "qwen.tiktoken", "chat_template.jinja",
        "additional_chat_templates/tools.jinja", "LICENSE", "LICENSE.txt", "NOTICE",
    }  # fmt: skip
    others = {
        "config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "m.gguf",
        "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", ".env", "README.md",
        "modeling_evil.py", "adapter_config.json", "original/consolidated.00.pth", "checkpoint-5/tokenizer.json",
        "tf_model.h5", "events.out.tfevents.1", ".git/config", "id_rsa", "wandb/tokenizer.json",
    }  # fmt: skip
    source, out = tmp_path / "source", tmp_path / "out"
    write_files(source, {name: name for name in belongs | others})
    (source / "tokenizer.json").chmod(0o444)
    out.mkdir()
    copy_extras(source, out)
    assert read_files(out) == {name: name for name in belongs}
    assert os.access(out / "tokenizer.json", os.W_OK)


def test_the_tokenizer_files_of_transformers_own_classes_belong(tmp_path: Path) -> None:
    """Of the architectures that run, and of those whose tokenizers other models borrow."""
    models = Path(transformers.__file__).parent / "models"
    named = set()
    for model in ("llama", "qwen2", "gemma", "gpt2", "t5", "bert", "camembert", "xglm", "code_llama", "cohere"):
        for node in ast.walk(ast.parse((models / model / f"tokenization_{model}.py").read_text())):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VOCAB_FILES_NAMES":
                named |= set(ast.literal_eval(node.value).values())
    assert {"tokenizer.model", "vocab.json", "spiece.model"} < named
    write_files(tmp_path / "source", dict.fromkeys(named, ""))
    (tmp_path / "out").mkdir()
    copy_extras(tmp_path / "source", tmp_path / "out")
    assert set(read_files(tmp_path / "out")) == named


@pytest.mark.parametrize("spelling", [(), ("dtype",), ("torch_dtype",), ("torch_dtype", "dtype")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_config_says_the_files_format(spelling: tuple[str, ...], dtype: str, tmp_path: Path) -> None:
    """As transformers reads it, and as its older versions did."""
    import torch

    source = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "_name_or_path": "/home/me/base"}
    source |= dict.fromkeys(spelling, "float16")
    found = exported_config(source, dtype=dtype, head=Head.lm)
    assert {name: found[name] for name in spelling} == dict.fromkeys(spelling, dtype)
    assert "_name_or_path" not in found and source["_name_or_path"]
    (tmp_path / "config.json").write_text(json.dumps(found))
    assert AutoConfig.from_pretrained(tmp_path).dtype == getattr(torch, dtype)


def test_a_reward_models_config_has_one_label_whatever_the_sources_had(tmp_path: Path) -> None:
    source = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_labels": 2, "eos_token_id": 1,
        "problem_type": "single_label_classification", "id2label": {"0": "a", "1": "b"}, "torch_dtype": "bfloat16",
    }  # fmt: skip
    found = exported_config(source, dtype="float32", head=Head.reward)
    assert is_scorer(found, "here") and found["torch_dtype"] == "float32"
    (tmp_path / "config.json").write_text(json.dumps(found))
    assert AutoConfig.from_pretrained(tmp_path).num_labels == 1


def test_the_config_is_read_as_the_model_was(tmp_path: Path) -> None:
    """With a byte order mark too, which some editors write: it must not show up only when the model is saved."""
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 8}), encoding="utf-8-sig")
    out = begin(tmp_path / "model")
    model_export.write_config(tmp_path, out, dtype="float32", head=Head.lm)
    assert json.loads((out / "config.json").read_text()) == {"vocab_size": 8, "dtype": "float32"}


def test_what_cannot_be_copied_is_told_before_the_start_or_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_files(source, {"tokenizer.json": "{}", "LICENSE": "free"})
    (source / "NOTICE").symlink_to("gone")
    (source / "vocab.json").symlink_to(tmp_path)
    assert model_export.unreadable(source) is None
    out.mkdir()
    copy_extras(source, out)
    assert read_files(out) == {"tokenizer.json": "{}", "LICENSE": "free"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "LICENSE")
    assert model_export.unreadable(source) == source / "LICENSE"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_are_as_readable_as_other_files(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
        model_export.open_to_readers(tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["model.safetensors"]
