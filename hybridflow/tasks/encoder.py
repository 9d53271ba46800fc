"""Texts and chats to token ids, by the tokenizer's own conventions.

A text gets what the tokenizer puts before every text (a BOS, if anything); a chat gets what its template writes, and
nothing besides. A response gets nothing before it and one end after it. What cannot be said in tokens is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.errors import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
"""One turn of a chat: `{"role": "user", "content": "…"}`."""

OURS = frozenset({
    "messages", "conversation", "add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation",
    "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
})  # fmt: skip
"""What `apply_chat_template` takes that is not the user's to say."""

_PROBE = "a turn's text"


class Encoder:
    """Token ids of prompts and responses, by the conventions of one tokenizer.

    Args:
        template_options: variables of the chat template (`enable_thinking`); `chat_template` names one of several.

    Raises ValueError for an option that the template does not read.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template_options: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self._options = dict(template_options or {})
        self._check_options()

    def prompt(self, prompt: str | Sequence[Message]) -> list[int]:
        """Return token ids of a text, or of a chat up to where the assistant continues.

        A chat whose last turn is the assistant's is continued in that turn. Raises ValueError for what has no tokens,
        or a chat if there is no chat template.
        """
        if isinstance(prompt, str):
            ids = self.bare(prompt)
            opening = self.opening
            return ids if ids[: len(opening)] == opening else [*opening, *ids]
        messages = checked(prompt)
        if len(messages) > 1 and is_prefill(messages[-1]) and not messages[-1]["content"]:
            messages.pop()  # a turn in which nothing is said yet is one to begin
        return self.bare(self._rendered(messages, goes_on=is_prefill(messages[-1])))

    def response(self, text: str, *, chat: bool) -> list[int]:
        """Return token ids of a whole response with its end: in a chat, the one that the template ends a turn with.

        Raises ValueError if there is no end, or for what has no tokens.
        """
        end = self.turn_end if chat else None
        end = self.tokenizer.eos_token_id if end is None else end
        if end is None:
            raise ValueError("the tokenizer has no eos_token: a supervised response cannot be ended; give it one")
        return [*self.bare(text), end]

    def bare(self, text: str) -> list[int]:
        """Return token ids of a text and nothing else. Raises ValueError for a character or a word without a token."""
        if halves := sorted({char for char in text if "\ud800" <= char <= "\udfff"}):
            raise ValueError(
                f"{text!r} has {halves}, halves of a surrogate pair, which are no characters; mend the text"
            )
        # Not verbose: whether a row is too long is told, or taken care of, elsewhere.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise ValueError(f"the tokenizer has no tokens for {self._unknown(text)} in {shown(text)}: {_REMEDY}")
        if self._may_lose and (lost := self._lost(text, ids)):
            raise ValueError(f"the tokenizer has no tokens for {lost} in {shown(text)}: {_REMEDY}")
        return ids

    @cached_property
    def opening(self) -> list[int]:
        """Token ids that the tokenizer puts before every text of its own accord: a BOS, or nothing."""
        for text in map(chr, range(33, 127)):
            bare: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            whole: list[int] = self.tokenizer(text)["input_ids"]
            if bare:
                starts = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
                return whole[: starts[0]] if starts else []
        return []

    @cached_property
    def turn_end(self) -> int | None:
        """Token that the chat template writes after an assistant's turn; None if that is no token of its own."""
        if not self.tokenizer.chat_template:
            return None
        turns: list[Message] = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        try:
            after = self._rendered(turns, goes_on=None).rpartition(_PROBE)[2].lstrip()
        except ValueError:  # a template that wants other turns than these: prompts will say so
            return None
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        made_for_it = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return ids[0] if ids and ids[0] in made_for_it else None

    def _rendered(self, messages: list[Message], *, goes_on: bool | None) -> str:
        """Render a chat as text.

        Args:
            goes_on: True continues its last turn, False begins a turn of the assistant; None: the chat is over.
        """
        if not self.tokenizer.chat_template and "chat_template" not in self._options:
            raise ValueError(
                "this task speaks in chat messages, but the tokenizer has no chat template: use a chat model"
            )
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=goes_on is False,
                continue_final_message=goes_on is True,
                **self._options,
            )
        except Exception as error:  # a template raises what it likes
            raise ValueError(f"the chat template does not take {shown(messages)}: {error}") from error
        return text

    def _check_options(self) -> None:
        """Refuse an option that the template does not read: it would change nothing, silently."""
        names = [name for name in self._options if name not in ("tools", "documents", "chat_template")]
        for name in names:
            if name in OURS:
                raise ValueError(f"{name!r} is not to be given: a task's prompts decide it")
        if not names or not self.tokenizer.chat_template:
            return
        from jinja2 import Environment, TemplateError, meta  # transformers renders with it, in a sandbox

        template = self.tokenizer.get_chat_template(self._options.get("chat_template"), self._options.get("tools"))
        try:
            read = meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template))
        except TemplateError:  # tags of transformers' own
            return
        for name in names:
            if name not in read:
                known = ", ".join(sorted(read - {"messages", "raise_exception", "strftime_now", "tools", *OURS}))
                raise ValueError(f"the chat template does not read {name!r}; it reads {known or 'no option'}")

    @cached_property
    def _may_lose(self) -> bool:
        """Tell whether a character may be dropped silently: some byte has no token, and no normalizer decides."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = self.tokenizer.get_vocab()
        every_byte = all(symbol in vocabulary for symbol in bytes_to_unicode().values())
        return backend is not None and backend.normalizer is None and not every_byte

    def _lost(self, text: str, ids: list[int]) -> list[str]:
        """List the characters that encoding drops. Spaces may rightly be left to the words around them."""
        decoded = set(self.tokenizer.decode(ids))
        return sorted(char for char in set(text) - decoded if not char.isspace())

    def _unknown(self, text: str) -> list[str]:
        """List the words that have become the token for unknown ones."""
        if not self.tokenizer.is_fast:
            return [str(self.tokenizer.unk_token)]
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        return sorted({text[start:stop] for id, (start, stop) in spans if id == self.tokenizer.unk_token_id})


_REMEDY = "use a model with a larger vocabulary, or other words"


def checked(messages: Any) -> list[Message]:
    """Return a chat's messages, parts of text joined. Raises ValueError naming what is no message."""
    if isinstance(messages, np.ndarray):  # as a table read from Parquet has them
        messages = messages.tolist()
    if isinstance(messages, Mapping):
        raise ValueError(
            f"the prompt is one message, {shown(dict(messages))}; a chat is a list of them: put it into [ ]"
        )
    if not isinstance(messages, Sequence) or isinstance(messages, bytes):
        kind = type(messages).__name__
        raise ValueError(
            f"the prompt is {shown(messages)}, of type {kind}; a text or a list of chat messages was expected"
        )
    if not messages:
        raise ValueError("the prompt is a chat without messages")
    return [_checked_message(number, message) for number, message in enumerate(messages)]


def is_prefill(last: Message) -> bool:
    """Tell whether a chat that ends in this message continues in it."""
    return last["role"] == "assistant" and isinstance(last.get("content"), str) and not last.get("tool_calls")


def _checked_message(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f'message {number} is {shown(message)}; {{"role": "user", "content": "…"}} was expected')
    content = message.get("content")
    if isinstance(content, str) or (content is None and message.get("tool_calls")):
        return message
    if isinstance(content, Sequence) and content and all(_is_text(part) for part in content):
        return {**message, "content": "".join(part["text"] for part in content)}
    raise ValueError(f"message {number} ({message['role']}) has the content {shown(content)}; a text was expected")


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
