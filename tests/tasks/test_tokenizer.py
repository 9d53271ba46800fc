"""The char tokenizer: a token a character, there and back, also through a model folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config

from hybridflow.tasks.tokenizer import char_tokenizer, load_decoder, load_tokenizer

ALPHABET = "ab01 \n+=<>"
TOKENIZER = char_tokenizer(ALPHABET, max_tokens=77)


@given(st.text(ALPHABET))
def test_a_token_a_character_there_and_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert ids == [2 + ALPHABET.index(char) for char in text]
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode([*ids, TOKENIZER.eos_token_id], skip_special_tokens=True) == text


def test_special_tokens() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id) == (0, 1)
    assert len(TOKENIZER) == len(ALPHABET) + 2
    assert TOKENIZER(["a", "ab"], padding=True)["input_ids"] == [[0, 2], [2, 3]]


@pytest.mark.parametrize("alphabet", ["", "aba", "né"])
def test_alphabets_that_are_none(alphabet: str) -> None:
    with pytest.raises(ValueError, match="each of them once"):
        char_tokenizer(alphabet)


@pytest.mark.parametrize("config", [Qwen2Config, LlamaConfig])
def test_a_model_folder_keeps_it(config: type, tmp_path: Path) -> None:
    """Transformers chooses the tokenizer's class by the model beside it; no token may be added or moved by that."""
    TOKENIZER.save_pretrained(tmp_path)
    config(vocab_size=len(TOKENIZER)).save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert loaded.get_vocab() == TOKENIZER.get_vocab()
        assert (loaded.pad_token_id, loaded.eos_token_id, loaded.model_max_length) == (0, 1, 77)
        assert loaded.decode(loaded(ALPHABET)["input_ids"]) == ALPHABET


def test_the_light_decoder_agrees_and_is_light(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    assert load_decoder(tmp_path)([0, 0, *TOKENIZER("a 1\n")["input_ids"], 1]) == "a 1\n"
    code = """
import sys
from hybridflow.tasks.tokenizer import load_decoder
load_decoder(sys.argv[1])
print([m for m in ("torch", "transformers") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    for load in (load_tokenizer, load_decoder):
        with pytest.raises(FileNotFoundError, match=r"tokenizer.json does not exist.*hybridflow model"):
            load(tmp_path)
