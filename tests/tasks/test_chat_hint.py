"""The hint that texts stay texts, for a model with a chat template."""

from __future__ import annotations

import pytest

from hybridflow.errors import DataError
from hybridflow.tasks import Example, Task
from hybridflow.tasks.chat_hint import HINT, hints
from hybridflow.tasks.chat_template import ChatForm
from hybridflow.tasks.tokenizer import char_tokenizer


class Asked(Task):
    """One prompt, after a row that cannot be read."""

    def __init__(self, prompt: object, template: str | None) -> None:
        tokenizer = char_tokenizer("0123456789+=")
        tokenizer.chat_template = template
        super().__init__(tokenizer)
        self.prompt = prompt

    def size(self, split: str) -> int:
        return 2

    def example(self, split: str, index: int) -> Example:
        if index == 0:
            raise DataError("not JSON", reason="not JSON")
        return Example(self.prompt, "2", sample_id=index)  # type: ignore[arg-type]


CHAT = [{"role": "user", "content": "1+1="}]


@pytest.mark.parametrize(
    ("prompt", "template", "as_chat", "told"),
    [
        ("1+1=", "{{ messages }}", False, [HINT]),
        ("1+1=", "{{ messages }}", True, []),
        ("1+1=", None, False, []),
        (CHAT, "{{ messages }}", False, []),
    ],
)
def test_texts_are_told_where_a_template_could_make_chats_of_them(
    prompt: object, template: str | None, as_chat: bool, told: list[str]
) -> None:
    task = Asked(prompt, template)
    task.chat_form = ChatForm(as_chat=as_chat)
    assert hints(task, "train") == told
