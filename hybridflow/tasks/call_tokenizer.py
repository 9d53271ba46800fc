"""Tokenizer of a tiny model that calls a calculator: a token a byte, and one for each end of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridflow.tasks.tokenizer import EOS, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOOLS = "<|tools|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
# What every call has in common is one token, so that a call is hardly longer than its expression.
CALL_BEGINS = '<call>{"name": "calculator", "arguments": {"expression": "'
CALL_ENDS = '"}}</call>'
TEMPLATE = (
    "{%- if tools %}{{ '" + TOOLS + "' }}{% endif %}"
    "{%- for message in messages %}{{ '<|' + message.role + '|>' + (message.content or '') }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{ '<call>{\"name\": ' + (call.function.name | tojson) }}"
    "{{ ', \"arguments\": ' + (call.function.arguments | tojson) + '}</call>' }}"
    "{%- endfor %}{{ '" + EOS + "' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def call_tokenizer(max_tokens: int = 1024) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with a chat template that writes calls as JSON between `<call>` and `</call>`.

    It has tokens for every text, as what an environment says is not ours to choose.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = (PAD, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([TOOLS, *ROLES])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (CALL_BEGINS, CALL_ENDS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=TEMPLATE,
        padding_side="left",
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
