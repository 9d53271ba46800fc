"""Lengths of a task's rows: of a sample of them, where that can be read in a moment, without a server or a download.

Tokens are counted with the model's own tokenizer.json; what a chat template writes around a message is an expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybridflow.bounded_code import at_most
from hybridflow.config.schema import Config
from hybridflow.options import effective_options
from hybridflow.planning.lengths import Lengths

READ = ("addition", "addition_calls", "addition_pairs", "addition_sevens", "guess", "mixture", "rows", "word_sums")
"""Tasks that make their rows, or read them from files."""
MAX_BYTES = 16 * 2**20  # of files that are read
MAX_S = 1.0
SAMPLE = 64
MESSAGE_TOKENS = 5  # that a chat template writes around a message: who speaks, and that it ends


class RowLengths(NamedTuple):
    """Tokens of prompts, and of the responses that come with them (None: none do)."""

    prompts: Lengths
    responses: Lengths | None


def sampled_lengths(config: Config, *, supervised: bool) -> RowLengths | None:
    """Count the tokens of a sample of the task's rows. None: they cannot be read in a moment, or not at all."""
    if config.task.name not in READ or not _is_small(config.task.options):
        return None
    try:
        with at_most(MAX_S):
            return _counted(config, supervised)
    except Exception:  # what is wrong with a task, preflight says; here there is an expectation instead
        return None


def _counted(config: Config, supervised: bool) -> RowLengths:
    from tokenizers import Tokenizer

    from hybridflow.tasks import tasks

    tokenizer = Tokenizer.from_file(str(Path(config.actor.model.path) / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    part = tasks.get(config.task.name)
    task: Any = part(tokenizer, **effective_options(part, config.task.options))
    split = "warmup" if supervised else "train"
    size = task.size(split)
    rows = np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).astype(int)).tolist()
    examples = [task.example(split, row) for row in rows]
    extra = (count(config.task.system_prompt) + MESSAGE_TOKENS) if config.task.system_prompt else 0
    prompts = Lengths(tuple(float(_prompt_tokens(example.prompt, count) + extra) for example in examples))
    if not supervised:
        return RowLengths(prompts, None)
    taught = (example.answer if example.response is None else example.response for example in examples)
    return RowLengths(prompts, Lengths(tuple(float(count(str(text)) + 1) for text in taught)))


def _prompt_tokens(prompt: str | Sequence[Mapping[str, Any]], count: Callable[[str], int]) -> int:
    if isinstance(prompt, str):
        return count(prompt)
    said = (str(message.get("content") or "") for message in prompt)
    return MESSAGE_TOKENS + sum(count(text) + MESSAGE_TOKENS for text in said)


def _is_small(options: Mapping[str, Any]) -> bool:
    """Tell whether the files that options name are there, and few enough bytes; a name on the hub is no file."""
    paths = [Path(path).expanduser() for path in _paths(options)]
    return all(path.exists() for path in paths) and sum(map(_bytes, paths)) <= MAX_BYTES


def _paths(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _paths(value)
        elif name in ("path", "held_out_path"):
            yield from [value] if isinstance(value, str) else map(str, value or ())


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
