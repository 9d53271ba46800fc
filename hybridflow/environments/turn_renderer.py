"""Tokens of a conversation that the policy did not write: those between two of its turns.

What the policy wrote is never made tokens of again: other tokens may have the same text, and the weights would learn
from what they never sampled. So only what is new is rendered, which is what a template writes after a turn of the
assistant that ends in a mark nobody else writes, and it is encoded from the token on that ends a turn, before which no
tokenizer looks back.

That this leaves earlier tokens as the template would have them is a property of template and tokenizer. `problem` tries
it on conversations of some turns before a run starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message
from hybridflow.tasks.chat_template import THOUGHT, THOUGHT_END
from hybridflow.tasks.encoder import Encoder

MARK = "0what the policy said0"  # it stands for a turn; texts before it are ours, so its first place is the turn's
HOLE = "0content{}0"
QUESTION: Message = {"role": "user", "content": "first of all"}
TURNS = 3  # of the conversations that are tried
AROUND = 16  # tokens of each side that a message shows where two differ


class TurnRenderer:
    """Tokens between a turn that the policy wrote and its next, by the conventions of one tokenizer.

    Args:
        chat: False for conversations that began with a text: they go on with texts, as they are.
    """

    def __init__(self, encoder: Encoder, *, chat: bool) -> None:
        self._encoder = encoder
        self._chat = chat

    def between(self, written: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """Return the tokens after a turn: the rest of its end, the messages, and the beginning of the next turn.

        Args:
            written: the tokens of the turn, as the policy wrote them; with the token that ends a turn, or without.

        Raises ValueError for what the template does not take, or has no tokens.
        """
        if not self._chat:
            return [id for message in messages for id in self._content(_text(message))]
        end = self._encoder.turn_end
        if end is None:
            raise ValueError("the chat template ends a turn of the assistant with no token of its own")
        tokens = self._between_turns(messages)
        if tokens[:1] != [end]:
            raise ValueError(
                f"the chat template does not write the token that ends a turn, {self._decoded([end])!r}, after a turn "
                "that others follow"
            )
        return tokens[1:] if list(written[-1:]) == [end] else tokens

    def problem(self, roles: Sequence[str], *, keep_turns: bool = False) -> str | None:
        """Say why a conversation with messages of these roles cannot be gone on with; None: it can.

        Args:
            keep_turns: it may be another than the template's, as long as it can be gone on with at all.
        """
        if not self._chat:
            return None
        for role in roles:
            tried = 0
            for answer in self._answers():
                try:
                    tried += self._try(role, answer, keep_turns)
                except ValueError as error:
                    return f"messages of the role {role!r}: {error}"
            if not tried:
                return f"messages of the role {role!r}: the chat template takes no turn of the assistant before them"
        return None

    def _try(self, role: str, answer: str, keep_turns: bool) -> bool:
        """Go on with a conversation of some turns, and compare; return whether the template takes such answers at all.

        Raises ValueError if what the template makes of the whole has other tokens.
        """
        messages = [QUESTION]
        tokens = self._encoder.prompt(messages)
        for turn in range(TURNS):
            try:
                written = self._encoder.answer(messages, answer)
            except ValueError:  # as where turns begin with a thought, and it has none
                return False
            said: Message = {"role": role, "content": f"and then {turn}"}
            tokens += [*written, *self.between(written, [said])]
            if said["content"] not in self._decoded(tokens):
                raise ValueError("the chat template leaves them out")
            messages += [{"role": "assistant", "content": self._encoder.form.prefill + answer}, said]
            if not keep_turns:
                self._compare(tokens, self._encoder.prompt(messages))
        return True

    def _compare(self, gone_on: list[int], whole: list[int]) -> None:
        pairs = zip(gone_on, whole, strict=False)
        differs = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(gone_on), len(whole)))
        if gone_on == whole:
            return
        near = slice(max(differs - AROUND, 0), differs + AROUND)
        raise ValueError(
            f"with a later turn the chat template changes what came before: {shown(self._decoded(gone_on[near]))} "
            f"becomes {shown(self._decoded(whole[near]))}. A policy would learn from tokens that it did not see"
        )

    def _answers(self) -> Iterator[str]:
        """Yield answers that a policy might give."""
        yield "an answer"
        if self._encoder.template.knows_thoughts:
            yield f"{THOUGHT}\na thought\n{THOUGHT_END}\n\nan answer"

    def _between_turns(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens between two turns, the token that ends the first one included."""
        holed = list(messages)
        contents: list[str] = []
        for place, message in enumerate(messages):
            if any(special in _text(message) for special in self._specials):
                holed[place] = {**message, "content": HOLE.format(len(contents))}
                contents.append(_text(message))
        turn: Message = {"role": "assistant", "content": MARK}
        text = self._encoder.template.begun([QUESTION, turn, *holed])
        _, found, left = text.partition(MARK)
        if not found:
            raise ValueError("the chat template leaves turns of the assistant out that others follow")
        tokens = []
        for number, content in enumerate(contents):
            before, _, left = left.partition(HOLE.format(number))
            tokens += [*self._encoder.bare(before), *self._content(content)]
        return tokens + self._encoder.bare(left)

    def _content(self, text: str) -> list[int]:
        """Return the tokens of a text that somebody else wrote: it is no place for tokens that end or begin turns."""
        if not any(special in text for special in self._specials):
            return self._encoder.bare(text)
        ids: list[int] = self._encoder.tokenizer(
            text, add_special_tokens=False, verbose=False, split_special_tokens=True
        )["input_ids"]
        return ids

    @cached_property
    def _specials(self) -> list[str]:
        """Texts that stand for special tokens."""
        tokenizer = self._encoder.tokenizer
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        return sorted({*tokenizer.all_special_tokens, *added})

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._encoder.tokenizer.decode(ids)
        return text


def _text(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
