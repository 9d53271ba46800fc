"""What the models of a run take: limits, vocabularies, and what is said of tokenizers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hybridflow import preflight
from hybridflow.algorithms import algorithms
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError, DataError
from hybridflow.tasks import build
from hybridflow.tasks.chat_template import ChatForm
from hybridflow.tasks.tokenizer import char_tokenizer
from hybridflow.trainer.build import with_vocabulary
from hybridflow.trainer.chosen_rows import HeldOut
from hybridflow.trainer.task_rows import check_grader_sources, learned_too, limits, load_task, notes, ways
from tests.cli.conftest import QWEN2
from tests.tasks.written_rows import write_jsonl

ALPHABET = "0123456789+="


def model(folder: Path, vocab: int, *added: str, positions: int = 64) -> str:
    tokenizer = char_tokenizer(ALPHABET)
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": vocab, "max_position_embeddings": positions, "eos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(QWEN2 | sizes))
    return str(folder)


def config(actor: str, critic: str | None = None, *overrides: str) -> Config:
    settings = [f"actor.model.path={actor}", f"critic.model.path={critic or actor}", "rollout.max_sequence_tokens=64"]
    return preflight.load("train", ["experiment=addition", "algorithm=ppo", *settings, *overrides])


def test_the_least_vocabulary_and_length_of_the_models_in_use_count(tmp_path: Path) -> None:
    actor, critic = model(tmp_path / "a", 70), model(tmp_path / "c", 23, positions=48)
    found = limits(config(actor, critic))
    assert (found.tokens, found.said) == (48, f"max_position_embeddings of {critic} (critic) = 48")
    assert {one.role: one.size for one in found.vocabularies} == {"actor": 70, "critic": 23, "reference": 70}
    alone = limits(config(actor, critic, "algorithm=grpo"))
    assert (alone.tokens, alone.said) == (64, "rollout.max_sequence_tokens = 64")
    assert with_vocabulary(config(actor, critic), ("actor", "critic")).rollout.vocabulary == 23
    assert with_vocabulary(config(actor, critic), ("actor", "reward")).rollout.vocabulary == 70
    fewer = config(actor, critic, "rollout.vocabulary=14")
    assert with_vocabulary(fewer, ("actor", "critic")).rollout.vocabulary == 14


def test_tokens_that_another_role_does_not_know_are_said(tmp_path: Path) -> None:
    actor, critic = model(tmp_path / "a", 70, "<think>"), model(tmp_path / "c", 70)
    (line,) = notes(config(actor, critic))
    assert line.startswith("critic: 1 added tokens of") and "'<think>' (id 14; there nothing)" in line
    assert [*notes(config(critic, actor))] == []


def test_a_response_must_be_able_to_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"actor.model.path: no response can end: it has the token '<\|endoftext\|>'"):
        [*notes(config(model(tmp_path / "a", 1)))]
    folder = model(tmp_path / "b", 70)  # whose end is id 1
    with pytest.raises(ConfigError, match=r"^rollout.vocabulary: no response can end: 1 given, .* are 1; give more th"):
        [*notes(config(folder, None, "rollout.vocabulary=1"))]
    assert [*notes(config(folder, None, "rollout.vocabulary=2"))] == []
    pairs = config(folder, None, "rollout.vocabulary=1", "algorithm=reward_model", "task=addition_pairs")
    assert [*notes(pairs)] == []  # it samples nothing


@pytest.mark.parametrize(
    ("algorithm", "wanted"),
    [
        ("grpo", {"train": "rows", "held_out": "rows"}),
        ("sft", {"warmup": "supervised", "held_out": "rows"}),
        ("dpo", {"train": "preferences", "held_out": "rows"}),
        ("reward_model", {"train": "preferences", "held_out": "preferences"}),
    ],
)
def test_which_rows_an_algorithm_takes(algorithm: str, wanted: dict[str, str]) -> None:
    assert ways(algorithms.get(algorithm)) == wanted


def test_a_folder_without_a_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    folder = model(tmp_path / "a", 70)
    (tmp_path / "a" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"^actor.model.path: .*tokenizer.json does not exist: a model folder holds"):
        load_task(config(folder))


def test_the_task_of_a_run_is_fitted_to_it(tmp_path: Path) -> None:
    settings = config(model(tmp_path / "a", 5))
    with pytest.raises(DataError, match=r"row 0 of split 'train': its prompt has the token '.' \(id \d+\), but the"):
        load_task(settings).rows("train", [0])
    short = replace(settings, rollout=replace(settings.rollout, max_sequence_tokens=70))
    assert limits(short).said.startswith("max_position_embeddings")


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ("{last_number: [gsm8k], exact: [words]}", ""),
        ("{last_number: [gsm8k]}", ""),
        (
            "{last_number: [gsm8q]}",
            r"^reward.grader_sources.last_number: no row is of the source 'gsm8q'; there is gsm8k",
        ),
        ("{last_number: [gsm8k], exact: [gsm8k]}", r"^reward.grader_sources: a row is of the source 'words', and"),
    ],
)
def test_the_sources_of_graders_are_those_of_the_rows(of: str, told: str, tmp_path: Path) -> None:
    """An answer is checked by the graders of its source: `twelve` is no number, and no number is asked for."""
    answers = [("gsm8k", "12"), ("words", "twelve")] * 8
    rows = [{"q": f"{n}+0=", "a": answer, "s": source} for n, (source, answer) in enumerate(answers)]
    file = write_jsonl(tmp_path, rows)
    graders = ["+reward.graders={last_number: 1.0, exact: 0.5}", f"reward.grader_sources={of}"]
    columns = [f"task.options.columns.{name}={name[0]}" for name in ("answer", "source")] + [
        "task.options.columns.prompt=q"
    ]
    own = ["task=rows", f"task.options.path={file}", *columns, *graders]
    settings = config(model(tmp_path / "a", 70), None, *own)
    task = load_task(settings)
    assert task.source_names == {"gsm8k", "words"}
    if told:
        with pytest.raises(ConfigError, match=told):
            check_grader_sources(settings, [task])
        return
    check_grader_sources(settings, [task])
    assert len(task.rows("train", range(task.size("train")))) == task.size("train")


def test_chat_settings_reach_the_task(tmp_path: Path) -> None:
    folder = model(tmp_path / "a", 70)
    with pytest.raises(ConfigError, match=r"^task.as_chat: the tokenizer has no chat template"):
        load_task(config(folder, None, "task.as_chat=true"))
    task = load_task(config(folder))
    assert task.chat_form == ChatForm()


def test_questions_that_are_learned_from_and_measured_on_are_counted(tmp_path: Path) -> None:
    rows = [{"question": f"{number}+1=", "answer": str(number + 1)} for number in range(40)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    learned, other = write_jsonl(tmp_path / "a", rows), write_jsonl(tmp_path / "b", rows[30:])
    tokenizer = char_tokenizer(ALPHABET)
    task = build("rows", tokenizer, {"path": str(learned), "held_out_fraction": 0.25})
    sets = build("rows", tokenizer, {"held_out_path": str(other)})
    both = build("mixture", tokenizer, {"sources": {"a": {"path": str(learned)}, "b": {"held_out_path": str(other)}}})
    (line,) = learned_too("train", task, [HeldOut(task), HeldOut(sets, "new")])
    asked = [task.example("train", row).prompt for row in range(task.size("train"))]
    shared = len({row["question"] for row in rows[30:]}.intersection(map(str, asked)))
    assert line.startswith(f"new: {shared} of its 10 questions are learned from too")
    (line,) = learned_too("train", both, [HeldOut(both)])
    assert line.startswith("held_out: ")
    unknown = build("addition", tokenizer, {})
    assert [*learned_too("train", unknown, [HeldOut(unknown), HeldOut(sets, "new")])] == []
