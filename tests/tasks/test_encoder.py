"""Tokenizers' own conventions: what opens a text, what a chat is, what ends a response, and what cannot be said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from hybridflow.errors import ConfigError, DataError
from hybridflow.tasks import Example, PreferenceTask, Task, build, tasks
from hybridflow.tasks.encoder import Encoder
from hybridflow.tasks.tokenizer import char_tokenizer, end_ids, load_decoder, load_tokenizer

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
USER = {"role": "user", "content": "hi"}
OPENED = {"role": "assistant", "content": "well,"}


def build_tokenizer_with_bos(*, eos_too: bool = False) -> PreTrainedTokenizerFast:
    """A char tokenizer whose post-processor opens each text with <s>, and perhaps ends it."""
    backend = char_tokenizer(PRINTABLE).backend_tokenizer
    backend.add_special_tokens(["<s>"])
    special = [("<s>", backend.token_to_id("<s>")), ("<|endoftext|>", 1)]
    single = "<s> $A <|endoftext|>" if eos_too else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>")


def build_chatml_tokenizer() -> PreTrainedTokenizerFast:
    """A char tokenizer with ChatML, whose own end is another than that of a turn."""
    tokenizer = char_tokenizer(PRINTABLE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def build_word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, and one for all that are not known."""
    vocabulary = {"<unk>": 0, "</s>": 1, "one": 2, "plus": 3, "two": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


class Told(PreferenceTask):
    """Rows that are given to it."""

    grader = "last_number"

    def __init__(self, tokenizer: Any, *rows: Example) -> None:
        super().__init__(tokenizer)
        self.given = rows

    def size(self, split: str) -> int:
        return len(self.given)

    def example(self, split: str, index: int) -> Example:
        return self.given[index]

    def rejected(self, split: str, index: int) -> str:
        return "no"


@pytest.mark.parametrize("eos_too", [False, True])
def test_a_text_opens_as_the_tokenizer_opens_it_and_never_ends(eos_too: bool) -> None:
    tokenizer = build_tokenizer_with_bos(eos_too=eos_too)
    encoder, bos = Encoder(tokenizer), tokenizer.bos_token_id
    bare = tokenizer("1+1=", add_special_tokens=False)["input_ids"]
    assert encoder.prompt("1+1=") == [bos, *bare] == encoder.prompt("<s>1+1=")
    assert encoder.response("2", chat=False) == [*tokenizer("2", add_special_tokens=False)["input_ids"], 1]
    assert encoder.prompt("") == [bos]


def test_a_tokenizer_that_opens_nothing_opens_nothing() -> None:
    assert Encoder(char_tokenizer("12")).prompt("12") == [2, 3]


def test_several_tokens_may_open_a_text() -> None:
    tokenizer = build_tokenizer_with_bos()
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <|endoftext|> $A", special_tokens=[("<s>", bos), ("<|endoftext|>", 1)]
    )
    assert Encoder(tokenizer).prompt("1")[:2] == [bos, 1] and len(Encoder(tokenizer).prompt("1")) == 3


def test_a_chat_has_the_bos_of_its_template_and_no_other() -> None:
    tokenizer = build_tokenizer_with_bos(eos_too=True)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert Encoder(tokenizer).prompt([USER]).count(tokenizer.bos_token_id) == 1
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert Encoder(tokenizer).prompt([USER]).count(tokenizer.bos_token_id) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_add_bos_token_of_a_folder_is_heeded(asked: bool, tmp_path: Path) -> None:
    tokenizer = char_tokenizer(PRINTABLE)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": asked}))
    loaded = load_tokenizer(tmp_path)
    found = Encoder(loaded).prompt("1+1")
    assert found == [loaded.bos_token_id] * asked + tokenizer("1+1")["input_ids"]
    assert load_decoder(tmp_path)(found) == "1+1"


def test_a_chat_that_ends_with_the_assistant_is_gone_on_with() -> None:
    tokenizer = build_chatml_tokenizer()
    encoder = Encoder(tokenizer)
    whole = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encoder.prompt([USER])) == whole
    assert tokenizer.decode(encoder.prompt([USER, OPENED])) == whole + "well,"
    rows = Told(tokenizer, Example([USER, OPENED], "5", 0)).supervised("train", [0])
    assert tokenizer.decode(rows.ragged("response_ids")[0]) == "5<|im_end|>"


@pytest.mark.parametrize("content", ["m.content", "m.content | trim"])
def test_an_assistants_turn_without_a_word_is_one_to_begin(content: str) -> None:
    tokenizer = build_chatml_tokenizer()
    tokenizer.chat_template = CHATML.replace("m.content", content)
    encoder, nothing = Encoder(tokenizer), {"role": "assistant", "content": ""}
    assert encoder.prompt([USER, nothing]) == encoder.prompt([USER])


def test_a_turn_ends_as_the_template_ends_it_on_every_side(tmp_path: Path) -> None:
    tokenizer = build_chatml_tokenizer()
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    task = Told(tokenizer, Example([USER], "5", 0), Example("hi", "5", 1))
    pairs = task.preferences("train", [0, 1])
    for column in ("response_ids", "rejected_ids"):
        assert [row[-1] for row in pairs.ragged(column)] == [turn_end, tokenizer.eos_token_id]
    tokenizer.save_pretrained(tmp_path)
    assert end_ids(tmp_path) == sorted([tokenizer.eos_token_id, turn_end])
    assert load_decoder(tmp_path)(pairs.ragged("response_ids")[0].tolist()) == "5"


def test_an_end_of_ordinary_tokens_is_none() -> None:
    tokenizer = char_tokenizer(PRINTABLE)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert Encoder(tokenizer).turn_end is None and Encoder(tokenizer).response("5", chat=True)[-1] == 1


@pytest.mark.parametrize(
    ("generation", "config", "wanted"),
    [
        (None, [3, 4], [1, 3, 4]),
        (None, 5, [1, 5]),
        ({"eos_token_id": [6]}, [3, 4], [1, 6]),
        ({"eos_token_id": None}, [3], [1, 3]),
        ({}, None, [1]),
    ],
)
def test_where_the_ends_come_from(generation: Any, config: Any, wanted: list[int], tmp_path: Path) -> None:
    char_tokenizer("12").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": config}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert end_ids(tmp_path) == wanted


def test_options_of_the_template_are_passed_on_and_misspelled_ones_told() -> None:
    tokenizer = build_chatml_tokenizer()
    found = tokenizer.decode(Encoder(tokenizer, {"enable_thinking": False}).prompt([USER]))
    assert found.endswith("assistant\n<think></think>")
    with pytest.raises(ValueError, match="does not read 'enable_thinkin'; it reads enable_thinking"):
        Encoder(tokenizer, {"enable_thinkin": False})
    with pytest.raises(ValueError, match="'tokenize' is not to be given"):
        Encoder(tokenizer, {"tokenize": True})


def test_one_of_several_templates(tmp_path: Path) -> None:
    tokenizer = build_chatml_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "short": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    tokenizer.save_pretrained(tmp_path)
    assert list(tmp_path.rglob("*.jinja"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.decode(Encoder(loaded, {"chat_template": "short"}).prompt([USER])) == "hi"
    assert loaded.decode(Encoder(loaded).prompt([USER])).startswith("<|im_start|>user")
    with pytest.raises(
        ValueError, match=r"chat_template: 'long' given; of the tokenizer's templates there is default,"
    ):
        Encoder(loaded, {"chat_template": "long"})
    with pytest.raises(ValueError, match=r"chat_template: 'short' given; .* there are none by name"):
        Encoder(build_chatml_tokenizer(), {"chat_template": "short"})


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (USER, "the prompt is one message, .*put it into"),
        ([], "a chat without messages"),
        (None, "the prompt is None, of type NoneType"),
        (7, "the prompt is 7, of type int"),
        (["hi"], "message 0 is 'hi'"),
        ([{"content": "hi"}], "message 0 is {'content': 'hi'}"),
        ([USER, {"role": "assistant", "content": None}], r"message 1 \(assistant\) has the content None"),
        ([{"role": "user", "content": 5}], r"message 0 \(user\) has the content 5"),
        ([{"role": "user", "content": [{"type": "image"}]}], "has the content .*image"),
        ("h\u00e9", r"no tokens for \['\u00e9'\]"),
        ("", "has no tokens"),
        ("1" * 4_000_001, "has 4000001 characters; at most 4000000 were expected"),
        ("h\ud83d", r"has \['\\ud83d'\], halves of a surrogate pair"),
        ([{"role": "user", "content": "\udc00"}], "halves of a surrogate pair"),
    ],
)
def test_what_is_no_prompt_names_its_row(prompt: Any, line: str) -> None:
    task = Told(build_chatml_tokenizer(), Example([USER], "5", 0), Example(prompt, "5", 1))
    assert len(task.rows("train", [0])) == 1
    with pytest.raises(DataError, match=rf"row 1 of split 'train': .*{line}"):
        task.rows("train", [0, 1])


def test_parts_of_text_and_calls_of_tools_are_messages() -> None:
    tokenizer = build_chatml_tokenizer()
    parts = [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]
    assert Encoder(tokenizer).prompt(parts) == Encoder(tokenizer).prompt([USER])
    assert Encoder(tokenizer).prompt(np.array([USER])) == Encoder(tokenizer).prompt([USER])
    called = [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}, USER]
    assert tokenizer.decode(Encoder(tokenizer).prompt(called)).endswith("<|im_start|>assistant\n")


def test_a_template_that_refuses_a_chat_names_the_row() -> None:
    tokenizer = build_chatml_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    with pytest.raises(DataError, match=r"row 0 of split 'train': the chat template does not take .*system first"):
        Told(tokenizer, Example([USER], "5", 0)).rows("train", [0])


def test_unknown_words_are_told_and_written_ones_taken() -> None:
    task = Told(
        build_word_tokenizer(),
        Example("one plus two", "3", 0),
        Example("one plus banana", "3", 1),
        Example("<unk>", "3", 2),
    )
    assert task.rows("train", [0, 2]).ragged("prompt_ids").values.tolist() == [2, 3, 4, 0]
    with pytest.raises(DataError, match=r"row 1 .*no tokens for \['banana'\] in 'one plus banana'"):
        task.rows("train", [1])


def test_a_tokenizer_is_read_as_its_file_has_it_whatever_the_model(tmp_path: Path) -> None:
    """transformers 5.19 makes byte-level BPE of this, in which every word is nothing."""
    build_word_tokenizer().save_pretrained(tmp_path)
    Qwen2Config(vocab_size=8).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("one two", add_special_tokens=False)["input_ids"] == []
    assert load_tokenizer(tmp_path)("one two")["input_ids"] == [2, 4]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "version https://git-lfs.github.com/spec/v1"])
def test_a_broken_tokenizer_is_one_sentence(name: str, text: str, tmp_path: Path) -> None:
    char_tokenizer("12").save_pretrained(tmp_path)
    (tmp_path / name).write_text(text)
    for load in (load_tokenizer, load_decoder):
        with pytest.raises(ValueError, match=f"{tmp_path}: its tokenizer cannot be read") as told:
            load(tmp_path)
        assert "\n" not in str(told.value)


def test_tokens_that_only_the_config_knows_as_special_are_no_text(tmp_path: Path) -> None:
    build_chatml_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    found = json.loads(file.read_text())
    for token in found["added_tokens"]:
        token["special"] = False
    file.write_text(json.dumps(found))
    tokenizer = load_tokenizer(tmp_path)
    ids = [*tokenizer("12", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert load_decoder(tmp_path)(ids) == tokenizer.decode(ids, skip_special_tokens=True) == "12"
    assert load_decoder(tmp_path)([*ids, 5000]) == "12"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("blue", "answer is 'blue', a number was expected"),
        (None, "a text or a finite number"),
        (float("nan"), "a text or a finite"),
        ("NaN", "a number was expected"),
        (["5"], "a text or a finite number"),
    ],
)
def test_what_cannot_be_an_answer_names_its_row(answer: Any, line: str) -> None:
    task = Told(build_chatml_tokenizer(), Example("1+4=", 5, 0), Example("1+4=", answer, 1))
    assert task.rows("train", [0]).dense("answer").tolist() == ["5"]
    for split in ("train", "held_out"):
        with pytest.raises(DataError, match=rf"row 1 of split '{split}': .*{line}"):
            task.rows(split, [0, 1])


def test_what_is_only_taught_need_not_be_gradable() -> None:
    task = Told(build_chatml_tokenizer(), Example("1+4=", "1+4 is 5", 0))
    assert len(task.supervised("warmup", [0])) == 1
    task.grader = "exact"
    assert task.rows("train", [0]).dense("answer").tolist() == ["1+4 is 5"]


@pytest.mark.parametrize("name", ["rows", "size", "encode"])
def test_an_attribute_that_hides_a_method_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hides(Task):
        def __init__(self, tokenizer: Any) -> None:
            super().__init__(tokenizer)
            setattr(self, name, [1, 2, 3])

        def size(self, split: str) -> int:
            return 3

        def example(self, split: str, index: int) -> Example:
            return Example("1", "1", index)

    monkeypatch.setitem(tasks._components, "hides", Hides)
    with pytest.raises(ConfigError, match=f"its attribute '{name}', a list, hides the method of that name"):
        build("hides", build_chatml_tokenizer(), {})


def test_transformers_does_not_warn_of_a_long_row(caplog: pytest.LogCaptureFixture) -> None:
    """It would, of indexing errors, also of a row that is left out or cut."""
    tokenizer, logger = char_tokenizer("123", max_tokens=8), logging.getLogger("transformers.tokenization_utils_base")
    logger.addHandler(caplog.handler)
    try:
        assert len(Encoder(tokenizer).prompt("1" * 50)) == 50
        assert caplog.records == []
        tokenizer("1" * 50)
        assert "longer than the specified maximum" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)
