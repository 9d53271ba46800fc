"""The chat template of a tokenizer: chats and supervised answers as the texts that it makes of them.

What a run asks of every prompt (`ChatForm`) is applied before: a system prompt, texts as chats, a beginning of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hybridflow.bounded_code import at_most
from hybridflow.errors import shown
from hybridflow.tasks.chat_messages import Message, checked, is_prefill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OURS = frozenset({
    "messages", "conversation", "add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation",
    "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
})  # fmt: skip
"""What `apply_chat_template` takes that is not the user's to say."""

MOST_CHARACTERS = 4_000_000  # of a text: to make tokens of more takes minutes, and 200 bytes of memory for each
RENDER_S = 3.0  # for a chat: a template is a program, which may come from anywhere
THOUGHT = "<think>"
THOUGHT_END = "</think>"
_PROBE = "a turn's text"
_SYSTEM_PROBE = "a system's text"
_ASKED: Message = {"role": "user", "content": _PROBE}


@dataclass(frozen=True)
class ChatForm:
    """Form that a run gives each prompt.

    Attributes:
        system_prompt: put before chats that have none.
        as_chat: a prompt that is a text becomes a user's message.
        prefill: the assistant's turn begins with it, unless the chat begins that turn itself.
    """

    system_prompt: str = ""
    as_chat: bool = False
    prefill: str = ""

    def apply(self, prompt: str | Sequence[Message]) -> str | list[Message]:
        """Return a text, or the checked messages of a chat with its system prompt. Applying it again changes nothing.

        Raises ValueError for what is no prompt, or a text where the settings need a chat.
        """
        if isinstance(prompt, str):
            if not self.as_chat:
                for key in ("system_prompt", "prefill"):
                    if getattr(self, key):
                        raise ValueError(
                            f"the prompt {shown(prompt)} is a text, which has no turns to put task.{key} into; set "
                            "task.as_chat=true to make it a user's message"
                        )
                return prompt
            prompt = [{"role": "user", "content": prompt}]
        messages = checked(prompt)
        if self.system_prompt and messages[0]["role"] not in ("system", "developer"):
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        return messages


class ChatTemplate:
    """Texts that a tokenizer's chat template makes of chats.

    Args:
        options: variables of the template (`enable_thinking`, `tools`); `chat_template` names one of several.
        form: what a run makes of each prompt; of it, `begun` and `said` heed the prefill.

    Raises ValueError for an option that the template does not read.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], form: ChatForm) -> None:
        self.tokenizer = tokenizer
        self.form = form
        self._options = dict(options)
        self._check_options()

    def begun(self, messages: Sequence[Message]) -> str:
        """Render a chat up to where the assistant goes on: in its last turn if that is the assistant's, else in a new
        one. Raises ValueError if the template does not take it.
        """
        before, opened = self._opened(messages)
        if opened is None:
            return self.rendered(before, goes_on=False) + self.form.prefill
        if before and self.knows_thoughts and opened.lstrip().startswith(THOUGHT) and THOUGHT_END not in opened:
            return self.rendered(before, goes_on=False) + opened  # in a whole turn it would be no thought
        return self.rendered(list(messages), goes_on=True)

    def said(self, messages: Sequence[Message], answer: str) -> str:
        """Return what the assistant says after `begun` so that its turn is the answer, without the turn's end.

        An answer that begins with the prefill says that once. Of a template that knows thoughts (<think>), it is what
        the template writes after `begun` in a chat that has the answer: of Qwen3's, an answer without a thought has an
        empty one.

        Raises ValueError if the template begins the turn in a way that this answer does not go on from.
        """
        before, opened = self._opened(messages)
        if opened is None and self.form.prefill:
            answer = answer.removeprefix(self.form.prefill)
            opened = self.form.prefill
        if not self.knows_thoughts:
            return answer
        begun = self.begun(messages)
        turn: Message = {"role": "assistant", "content": (opened or "") + answer}
        whole = self.rendered([*before, turn], goes_on=None)
        if whole.startswith(begun) and whole.endswith(self.after_turn):
            return whole[len(begun) : len(whole) - len(self.after_turn)]
        header = begun.removeprefix(self.rendered(before, goes_on=None) if before else "")
        return _after_thought(header, answer)

    @cached_property
    def after_turn(self) -> str:
        """Text that the template writes after what an assistant says. Raises ValueError if it takes no such chat."""
        return self.rendered([_ASKED, {"role": "assistant", "content": _PROBE}], goes_on=None).rpartition(_PROBE)[2]

    def rendered(self, messages: Sequence[Message], *, goes_on: bool | None) -> str:
        """Render a chat as text.

        Args:
            goes_on: True continues its last turn, False begins a turn of the assistant; None: the chat is over.
        """
        if not self.tokenizer.chat_template and "chat_template" not in self._options:
            raise ValueError(
                "this task speaks in chat messages, but the tokenizer has no chat template: use a chat model"
            )
        try:
            with at_most(RENDER_S):
                text: str = self.tokenizer.apply_chat_template(
                    list(messages),
                    tokenize=False,
                    add_generation_prompt=goes_on is False,
                    continue_final_message=goes_on is True,
                    **self._options,
                )
        except Exception as error:  # a template raises what it likes
            raise ValueError(f"the chat template does not take {shown(messages)}: {error}") from error
        if len(text) > MOST_CHARACTERS:
            raise ValueError(
                f"the chat template makes {len(text)} characters of {shown(messages)}; at most {MOST_CHARACTERS} were "
                "expected"
            )
        return text

    def check_form(self) -> None:
        """Raise ValueError, naming the setting, if the template cannot do what the form asks."""
        asked = [key for key in ("system_prompt", "as_chat", "prefill") if getattr(self.form, key)]
        if asked and not self.tokenizer.chat_template and "chat_template" not in self._options:
            raise ValueError(f"task.{asked[0]}: the tokenizer has no chat template; use a chat model, or leave it out")
        if self.form.system_prompt:
            try:
                text = self.rendered([{"role": "system", "content": _SYSTEM_PROBE}, _ASKED], goes_on=False)
            except ValueError as error:
                raise ValueError(f"task.system_prompt: {error}; leave it out") from error
            if _SYSTEM_PROBE not in text:
                raise ValueError("task.system_prompt: the chat template writes no system messages; leave it out")
        if self.form.prefill and (between := self._unwritten_header()):
            raise ValueError(
                f"task.prefill: the chat template does not begin a turn of the assistant, which has {between!r} before "
                "what is said: it heeds no add_generation_prompt; leave it out"
            )

    def _unwritten_header(self) -> str:
        """Return what a turn of the assistant has before its text that is missing where it is only begun."""
        try:
            begun = self.rendered([_ASKED], goes_on=False)
            whole = self.rendered([_ASKED, {"role": "assistant", "content": _PROBE}], goes_on=None)
        except ValueError:  # a template that wants other turns than these: prompts will say so
            return ""
        between = whole[len(begun) :].partition(_PROBE)[0] if whole.startswith(begun) else ""
        return "" if THOUGHT in between or THOUGHT_END in between else between.strip()

    def _opened(self, messages: Sequence[Message]) -> tuple[list[Message], str | None]:
        """Return a chat without a last turn of the assistant that is to be gone on with, and that turn's text."""
        if not is_prefill(messages[-1]):
            return list(messages), None
        before = list(messages[:-1])
        text: str = messages[-1]["content"]
        return before, None if before and not text else text  # in "" nothing is said yet

    @cached_property
    def knows_thoughts(self) -> bool:
        """Tell whether the template has a way of its own with thoughts."""
        return bool(self.tokenizer.chat_template) and THOUGHT_END in self._template

    @property
    def _template(self) -> str:
        name = self._options.get("chat_template")
        template: str = self.tokenizer.get_chat_template(name, self._options.get("tools"))
        return template

    def _check_options(self) -> None:
        """Refuse an option that the template does not read: it would change nothing, silently."""
        if "chat_template" in self._options:
            self._check_name(self._options["chat_template"])
        names = [name for name in self._options if name != "chat_template"]
        for name in names:
            if name in OURS:
                raise ValueError(f"{name!r} is not to be given: a task's prompts decide it")
        if not names or not self.tokenizer.chat_template:
            return
        from jinja2 import Environment, TemplateError, meta  # transformers renders with it, in a sandbox

        try:
            template = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(self._template)
            read = meta.find_undeclared_variables(template)
        except TemplateError:  # tags of transformers' own
            return
        for name in names:
            if name not in read:
                known = ", ".join(sorted(read - {"messages", "raise_exception", "strftime_now", *OURS}))
                raise ValueError(f"the chat template does not read {name!r}; it reads {known or 'no option'}")

    def _check_name(self, name: object) -> None:
        """Refuse the name of a template that there is not: transformers would take it for a template's text."""
        several = self.tokenizer.chat_template
        if not isinstance(several, Mapping) or name not in several:
            known = f"is {', '.join(several)}" if isinstance(several, Mapping) else "are none by name"
            raise ValueError(f"chat_template: {shown(name)} given; of the tokenizer's templates there {known}")


def _after_thought(header: str, answer: str) -> str:
    """Return what is said after a turn's header where the template writes whole turns in another way than it begins
    them.

    Raises ValueError if one has a thought and the other has none.
    """
    thinks = THOUGHT_END in answer
    if header.rfind(THOUGHT) > header.rfind(THOUGHT_END):
        if not thinks:
            raise ValueError(
                f"the assistant's turn begins with a thought, {header!r}, and the answer {shown(answer)} does not end "
                f"one ({THOUGHT_END}); give answers with thoughts, or task.chat_template_kwargs.enable_thinking=false "
                "if the template has that"
            )
        return answer.lstrip().removeprefix(THOUGHT).removeprefix("\n") if THOUGHT in answer else answer
    if THOUGHT_END in header and thinks:
        raise ValueError(
            f"the assistant's turn begins with an empty thought, {header!r}, and the answer {shown(answer)} has one: "
            "leave task.chat_template_kwargs.enable_thinking out, or the thought"
        )
    return answer
