"""Texts and chats to token ids, by the tokenizer's own conventions.

A text gets what the tokenizer puts before every text (a BOS, if anything); a chat gets what its template writes, and
nothing besides. A response gets nothing before it and one end after it. What cannot be said in tokens is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message, checked
from hybridflow.tasks.chat_template import MOST_CHARACTERS, ChatForm, ChatTemplate
from hybridflow.tasks.strict_json import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "Message", "checked"]

UNTOLD = "the tokenizer has no tokens for some of it"  # as the reason of a row that cannot be used


class Encoder:
    """Token ids of prompts and responses, by the conventions of one tokenizer.

    Args:
        template_options: variables of the chat template (`enable_thinking`); `chat_template` names one of several.
        form: what a run makes of each prompt.

    Raises ValueError for an option that the template does not read.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template_options: Mapping[str, Any] | None = None,
        form: ChatForm | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.form = form or ChatForm()
        self.template = ChatTemplate(tokenizer, template_options or {}, self.form)

    def prompt(self, prompt: str | Sequence[Message]) -> list[int]:
        """Return token ids of a text, or of a chat up to where the assistant continues.

        A chat whose last turn is the assistant's is continued in that turn. Raises ValueError for what has no tokens,
        or a chat if there is no chat template.
        """
        formed = self.form.apply(prompt)
        if not isinstance(formed, str):
            return self.bare(self.template.begun(formed))
        ids = self.bare(formed)
        opening = self.opening
        return ids if ids[: len(opening)] == opening else [*opening, *ids]

    def answer(self, prompt: str | Sequence[Message], text: str) -> list[int]:
        """Return token ids of a whole answer to a prompt, as supervised training teaches it; see `ChatTemplate.said`.

        Raises as `response`, and if the prompt or a chat's template does not take the answer.
        """
        formed = self.form.apply(prompt)
        if isinstance(formed, str):
            return self.response(text, chat=False)
        return self.response(self.template.said(formed, text), chat=True)

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
        """Return token ids of a text and nothing else.

        Raises ValueError for a character or a word without a token, and for a text that no context could hold.
        """
        if len(text) > MOST_CHARACTERS:
            raise ValueError(
                f"{shown(text[:MOST_CHARACTERS])} has {len(text)} characters; at most {MOST_CHARACTERS} were expected: "
                "split the row, or leave it out"
            )
        if halves := sorted({char for char in text if "\ud800" <= char <= "\udfff"}):
            raise ValueError(
                f"{shown(text)} has {halves}, halves of a surrogate pair, which are no characters; mend the text"
            )
        ids = self._ids(text)
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and self.tokenizer.unk_token not in text:
            raise _untold(self._unknown(text), text)
        if self._may_lose and (lost := self._lost(text, ids)):
            raise _untold(lost, text)
        return ids

    def _ids(self, text: str) -> list[int]:
        """Return what the tokenizer makes of a text. Of a call of transformers' only its Rust part matters here."""
        backend = self._backend
        if backend is not None:
            # Each call of transformers' leaves these as it wanted them, and others call it with `split_special_tokens`.
            backend.encode_special_tokens = self.tokenizer.split_special_tokens
            backend.no_truncation()
            backend.no_padding()
            return list(backend.encode(text, add_special_tokens=False).ids)
        # Not verbose: whether a row is too long is told, or taken care of, elsewhere.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @cached_property
    def _backend(self) -> Any:
        """The Rust tokenizer, if there is one."""
        return getattr(self.tokenizer, "backend_tokenizer", None)

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
        try:
            after = self.template.after_turn.lstrip()
        except ValueError:  # a template that wants other turns than these: prompts will say so
            return None
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        made_for_it = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return ids[0] if ids and ids[0] in made_for_it else None

    @cached_property
    def _may_lose(self) -> bool:
        """Tell whether a character may be dropped silently: some byte has no token, and no normalizer decides."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        backend = self._backend
        vocabulary = self.tokenizer.get_vocab()
        every_byte = all(symbol in vocabulary for symbol in bytes_to_unicode().values())
        return backend is not None and backend.normalizer is None and not every_byte

    def _lost(self, text: str, ids: list[int]) -> list[str]:
        """List the characters that encoding drops. Spaces may rightly be left to the words around them."""
        decoded = set(self._backend.decode(ids, skip_special_tokens=False))
        return sorted(char for char in set(text) - decoded if not char.isspace())

    def _unknown(self, text: str) -> list[str]:
        """List the words that have become the token for unknown ones."""
        if not self.tokenizer.is_fast:
            return [str(self.tokenizer.unk_token)]
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        return sorted({text[start:stop] for id, (start, stop) in spans if id == self.tokenizer.unk_token_id})


def _untold(lost: Sequence[str], text: str) -> RowError:
    """Describe what a tokenizer has no tokens for in a text."""
    remedy = "use a model with a larger vocabulary, or other words"
    return RowError(f"the tokenizer has no tokens for {lost} in {shown(text)}: {remedy}", UNTOLD)
