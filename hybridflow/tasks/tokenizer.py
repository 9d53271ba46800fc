"""Tokenizers: a character-level one of our own, and the reading of a model folder's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridflow.json_file import a_whole, is_there, read_object
from hybridflow.quick_imports import import_transformers
from hybridflow.tasks.encoder import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# Readers of a Qwen2 folder expect byte-level BPE and this end, and add it where it is missing, with an id outside of
# the model's vocabulary. So ours is byte-level BPE too, without merges, and this is the name of its end.
PAD = "<pad>"
EOS = "<|endoftext|>"
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def char_tokenizer(alphabet: str, max_tokens: int = 1024) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token a character: ids 0 and 1 are padding and the end, then the alphabet in its
    order.

    Decoding gives the text back unchanged. A character outside the alphabet is dropped silently, as in any BPE;
    `Encoder` refuses it. Raises ValueError if the alphabet is empty, not ASCII or names a character twice.
    """
    import_transformers()
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
    """Load the tokenizer of a model folder, from nowhere else: as its tokenizer.json has it, whatever the model beside
    it.

    Raises:
        FileNotFoundError: the folder has no tokenizer.
        ValueError: what it has cannot be read.
    """
    import_transformers()
    from transformers import PreTrainedTokenizerFast

    path = tokenizer_file(folder)
    try:
        config = _config(folder)  # before transformers, whose words for what is no object say nothing
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        bos = tokenizer.bos_token_id
        # transformers takes its word for it only where there is no tokenizer.json.
        if bos is not None and config.get("add_bos_token") is True and bos not in tokenizer("")["input_ids"]:
            tokenizer.add_bos_token = True
    except Exception as error:  # of the Rust library, which has classes of its own, too
        raise ValueError(f"{path.parent}: its tokenizer cannot be read: {_one_line(error)}") from error
    return tokenizer


def load_decoder(folder: str | Path, *, special_tokens: bool = False) -> Callable[[Sequence[int]], str]:
    """Return a function from token ids to text, for light workers: no transformers, no torch.

    Special tokens are no text, unless `special_tokens` says that they are written out. An id that is no token's, as a
    model's vocabulary may have for padding, is no text. Raises as `load_tokenizer`.
    """
    from tokenizers import AddedToken, Tokenizer

    path = tokenizer_file(folder)
    try:
        tokenizer = Tokenizer.from_file(str(path))
        config = _config(folder)
        added = {int(id): token for id, token in (config.get("added_tokens_decoder") or {}).items()}
        for id in sorted(added):
            if tokenizer.id_to_token(id) is None:
                tokenizer.add_tokens([AddedToken(added[id]["content"], normalized=False)])
        named = [config.get(name) for name in SPECIAL] + [token for token in added.values() if token.get("special")]
        for name in ("additional_special_tokens", "extra_special_tokens"):
            more = config.get(name) or []
            named += more.values() if isinstance(more, dict) else more
        texts = [token["content"] if isinstance(token, dict) else token for token in named if token]
        special = {tokenizer.token_to_id(text) for text in texts}
    except Exception as error:
        raise ValueError(f"{path.parent}: its tokenizer cannot be read: {_one_line(error)}") from error
    if special_tokens:
        return lambda ids: tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
    return lambda ids: tokenizer.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=True)


def end_ids(folder: str | Path, template_options: Mapping[str, Any] | None = None) -> list[int]:
    """Return the token ids that end a response of the model in this folder.

    They are those of generation_config.json or, if that names none, of config.json, the tokenizer's own end, and the
    token that its chat template ends a turn with.
    """
    tokenizer = load_tokenizer(folder)
    ids: list[Any] = [tokenizer.eos_token_id, Encoder(tokenizer, template_options).turn_end]
    for name in ("generation_config.json", "config.json"):
        ends = _json(Path(folder) / name).get("eos_token_id")
        if ends is not None and ends != []:
            named = f"{Path(folder) / name}: eos_token_id"
            ids += [a_whole(end, named) for end in (ends if isinstance(ends, list) else [ends])]
            break
    return sorted({int(i) for i in ids if i is not None})


def tokenizer_file(folder: str | Path) -> Path:
    """Locate the folder's tokenizer.json. Raises FileNotFoundError, saying how to get one, if it has none."""
    path = Path(folder) / "tokenizer.json"
    if not is_there(path):
        slow = (Path(folder) / "tokenizer.model").is_file()
        how = f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}) makes one"
        hint = f"{how} of its tokenizer.model" if slow else "`hybridflow model` makes one"
        raise FileNotFoundError(f"{path} does not exist: a model folder holds its tokenizer; {hint}")
    return path


def _config(folder: str | Path) -> dict[str, Any]:
    return _json(Path(folder) / "special_tokens_map.json") | _json(Path(folder) / "tokenizer_config.json")


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON file, {} if it is not there."""
    return read_object(path) if is_there(path) else {}


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
