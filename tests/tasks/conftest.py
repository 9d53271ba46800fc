"""Tokenizers that several tests share."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.tasks.addition import ALPHABET
from hybridflow.tasks.tokenizer import char_tokenizer

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def digits() -> PreTrainedTokenizerFast:
    """The tokenizer of `addition`."""
    return char_tokenizer(ALPHABET)


@pytest.fixture(scope="session")
def chat() -> PreTrainedTokenizerFast:
    """A char tokenizer over printable ASCII with a small chat template."""
    tokenizer = char_tokenizer("\n" + "".join(chr(c) for c in range(32, 127)))
    tokenizer.chat_template = CHAT
    return tokenizer
