"""Lengths of a run's rows, from the best that is there before it.

Responses are as long as those that an earlier run of the same folder wrote out, or as the task's where these are
taught; prompts as a sample of the task's rows, where it can be read in a moment, without a server or a download. Else
they are expectations: prompts of half to all of what a sequence leaves beside a response, and responses of which half
are shorter than a third of their limit. Tokens are counted with the model's own tokenizer.json; what a chat template
writes around a message is an expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from hybridflow.bounded_code import at_most
from hybridflow.config.schema import Config
from hybridflow.observe.run_records import newest_rows
from hybridflow.options import effective_options
from hybridflow.planning.lengths import Lengths

# Nobody knows lengths before a run; this is an assumption, with a mean of 0.41 of the limit. The mean responses that
# NeMo-RL reports for seven models (benchmarks/data/nemo_rl_steps.csv) are 0.2 to 0.8 of the longest sequence.
MEDIAN_SHARE = 1 / 3  # of the tokens that a response may have, which half of the responses do not reach
SIGMA = 0.8  # of the logarithm of their lengths
POINTS = 64  # that stand for a distribution
MAX_BYTES = 16 * 2**20  # of files of a task
MAX_S = 1.0  # that reading either may take
SAMPLE = 64
ENOUGH = 16  # rows that say how long rows are
MESSAGE_TOKENS = 5  # around a message in ChatML: its begin, who speaks and a line break; its end and a line break


class RowLengths(NamedTuple):
    """Tokens of prompts and responses; `notes` say of each that was not given where it is from."""

    prompts: Lengths
    responses: Lengths
    notes: tuple[str, ...] = ()


def row_lengths(config: Config, prompts: Lengths | None, responses: Lengths | None, *, supervised: bool) -> RowLengths:
    """Return the lengths of a run's rows.

    Args:
        prompts, responses: where they are known.
        supervised: the task's responses are taught.
    """
    if prompts and responses:
        return RowLengths(prompts, responses)
    notes = []
    sampled, taught = _in_time(sampled_lengths, config, supervised) or (None, None)
    if prompts is None and sampled is not None:
        notes.append(f"prompts have {sampled.mean:.0f} tokens, as in a sample of the task's rows")
    elif prompts is None:
        notes.append("prompt tokens are expected: half to all of what a sequence leaves beside a response")
    written = None if responses or supervised else _in_time(written_lengths, config)
    if written is not None:
        notes.append(f"responses have {written.mean:.0f} tokens, as the last rows in {_rollouts(config)}")
    elif responses is None and taught is None:
        notes.append(
            "response tokens are expected: half of the responses are shorter than a third of max_response_tokens"
        )
    return RowLengths(
        prompts or sampled or expected_prompts(config),
        responses or written or taught or expected_responses(config),
        tuple(notes),
    )


def expected_prompts(config: Config) -> Lengths:
    """Expect prompts to fill what is left of a sequence after a response, as nothing else is known of them."""
    most = max(1, config.rollout.max_sequence_tokens - config.rollout.max_response_tokens)
    return Lengths(tuple(np.linspace(most / 2, most, 9).tolist()))


def expected_responses(config: Config) -> Lengths:
    """Expect lengths of responses whose logarithm is normal, cut at what they may have."""
    most = config.rollout.max_response_tokens
    normal = NormalDist(float(np.log(max(1.0, most * MEDIAN_SHARE))), SIGMA)
    at = (np.arange(POINTS) + 0.5) / POINTS
    return Lengths(tuple(min(float(most), max(1.0, float(np.exp(normal.inv_cdf(share))))) for share in at))


def sampled_lengths(config: Config, supervised: bool) -> tuple[Lengths, Lengths | None] | None:
    """Count the tokens of prompts in a sample of the task's rows, and of the responses that are taught.

    None: the task's rows are not there without a server or a download, or are too many to be read in a moment.
    """
    from hybridflow.tasks import tasks

    part = tasks.get(config.task.name)
    if not part.is_local or not _is_small(config.task.options):
        return None
    tokenizer = _tokenizer(config)
    count = _counter(tokenizer)
    task: Any = part(tokenizer, **effective_options(part, config.task.options))
    split = "warmup" if supervised else "train"
    size = task.size(split)
    rows = np.unique(np.linspace(0, size - 1, min(size, SAMPLE)).astype(int)).tolist()
    examples = [task.example(split, row) for row in rows]
    extra = (count(config.task.system_prompt) + MESSAGE_TOKENS) if config.task.system_prompt else 0
    prompts = Lengths(tuple(float(_prompt_tokens(example.prompt, count) + extra) for example in examples))
    if not supervised:
        return prompts, None
    taught = (example.answer if example.response is None else example.response for example in examples)
    return prompts, Lengths(tuple(float(count(str(text)) + 1) for text in taught))


def written_lengths(config: Config) -> Lengths | None:
    """Count the tokens of the last responses that an earlier run wrote to this one's folder; None: too few are there.

    One that ended by itself has its end, which is no text.
    """
    rows = newest_rows(_rollouts(config) / "rank0.jsonl")
    if len(rows) < ENOUGH:
        return None
    count = _counter(_tokenizer(config))
    tokens = (count(str(row["response"])) + (row.get("finish_reason") == "end") for row in rows)
    return Lengths(tuple(float(min(max(1, length), config.rollout.max_response_tokens)) for length in tokens))


def _rollouts(config: Config) -> Path:
    return Path(config.run.root) / config.run.name / "rollouts"


def _in_time(read: Callable[..., Any], *args: Any) -> Any:
    """Return what is read; None: it takes too long, or cannot be read, which preflight says better."""
    try:
        with at_most(MAX_S):
            return read(*args)
    except Exception:
        return None


def _tokenizer(config: Config) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(config.actor.model.path) / "tokenizer.json"))


def _counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text).ids)


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
