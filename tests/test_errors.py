"""What messages show of values."""

from __future__ import annotations

import pytest

from hybridflow.errors import LONGEST_SHOWN, shown
from hybridflow.tasks.encoder import Encoder
from hybridflow.tasks.tokenizer import char_tokenizer


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [("yes\n", "'yes\\n'"), (None, "None"), ({"a": [1]}, "{'a': [1]}"), (10**5000, "int"), (nested(100_000), "list")],
    ids=["text", "none", "object", "digits", "brackets"],
)
def test_a_value_as_python_writes_it(value: object, text: str) -> None:
    assert shown(value) == text


def test_of_a_long_one_both_ends_are_seen() -> None:
    text = shown("a" * 10_000 + " = 72")
    assert text.startswith("'aaa") and text.endswith(" = 72'") and len(text) == LONGEST_SHOWN + 3


def test_a_long_prompt_does_not_fill_the_screen() -> None:
    encoder = Encoder(char_tokenizer("12+="))
    with pytest.raises(ValueError, match=r"has no tokens for \['x'\] in '1111") as error:
        encoder.bare("1" * 50_000 + "x")
    assert len(str(error.value)) < 400
