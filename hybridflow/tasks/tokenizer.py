"""Tokenizers: a character-level one of our own, and the reading of a model folder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# Transformers reads every folder of a Qwen2 model with Qwen2Tokenizer: byte-level BPE, whatever tokenizer.json says.
# So ours is that too, without merges. Qwen2Tokenizer adds the token below where it is missing, with an id outside the
# model's vocabulary. So it is the name of our end.
PAD, EOS = "<pad>", "<|endoftext|>"


def char_tokenizer(alphabet: str, max_tokens: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character: ids 0 and 1 are padding and the end, then the alphabet in its order.

    Decoding gives the text back unchanged. A character outside the alphabet is left out in silence, as in any BPE;
    `Task.encode` refuses it. Raises ValueError if the alphabet is empty, not ASCII or names a character twice.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if not alphabet or not alphabet.isascii() or len(set(alphabet)) != len(alphabet):
        raise ValueError(f"the alphabet {alphabet!r} must have ASCII characters, each of them once")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = (byte_level.pre_tokenize_str(char)[0][0] for char in alphabet)
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate((PAD, EOS, *names))}, merges=[]))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, from nowhere else. Raises FileNotFoundError if the folder has none."""
    from transformers import AutoTokenizer

    _tokenizer_file(folder)
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def load_decoder(folder: str | Path) -> Callable[[Sequence[int]], str]:
    """Token ids to text without special tokens, for light workers: it imports neither transformers nor torch.

    Raises FileNotFoundError if the folder has no tokenizer.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_tokenizer_file(folder)))
    return lambda ids: tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)


def _tokenizer_file(folder: str | Path) -> Path:
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: a model folder holds its tokenizer; `hybridflow model` makes one"
        )
    return path
