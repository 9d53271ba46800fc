"""One reading of all rows before a run: which question each asks, which split it is in, and which cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from hybridflow.tasks.row_files import Rows, each
from hybridflow.tasks.row_formats import Mapper, Question
from hybridflow.tasks.strict_json import RowError

MOST_SOURCES = 10_000  # more are no sources but, say, names of rows
_LAST = 2**64 - 1


@dataclass(frozen=True)
class QuestionIndex:
    """Facts of all rows, and the splits that they are in.

    Attributes:
        numbers: row numbers by split, [n] int64.
        suspects: places in a split of rows that cannot be read.
        carries: the columns of `carried_columns` that some row has.
        fingerprint: of all that the rows ask and answer, in their order.
        shared: rows of training that were left out, as `held_out` asks the same.
        repeated: rows of `train` that ask what one before them asks.
        unanswered: rows without an answer.
        source_names: what the sources of rows are called; None: they are too many to be listed.
        hashes: by split, what its rows ask, each question once, [n] uint64.
    """

    numbers: Mapping[str, np.ndarray]
    suspects: Mapping[str, Sequence[int]]
    carries: frozenset[str]
    fingerprint: str
    shared: int
    repeated: int
    unanswered: int
    source_names: frozenset[str] | None
    hashes: Mapping[str, np.ndarray]


def question_hash(question: Question) -> int:
    """Hash what a question asks to 64 bits: the same in every process and whatever else its row has."""
    return _hash(json.dumps(question.prompt, sort_keys=True, default=str))


@dataclass
class _Read:
    """Findings of one reading of all rows.

    Attributes:
        hashes: [R] uint64 of what each row asks; the largest number of one that cannot be read.
        sound: [R] bool, rows that can be read.
    """

    hashes: np.ndarray
    sound: np.ndarray
    carries: set[str]
    source_names: set[str] = field(default_factory=set)
    fingerprint: str = ""
    unanswered: int = 0


def index_questions(rows: Rows, mapper: Mapper, first_held_out: int | None, fraction: float) -> QuestionIndex:
    """Read all rows, and share them out to splits.

    Args:
        first_held_out: the number of the first row that is to be measured on; None: chosen by hash.
        fraction: of the questions, those that are then chosen.
    """
    read = _read(rows, mapper)
    hashes, sound = read.hashes, read.sound
    if first_held_out is None:
        held_out = sound & (hashes < np.uint64(int(fraction * 2**64)))
        if sound.any() and not held_out.any():  # few rows: one question all the same
            held_out = sound & (hashes == hashes[sound].min())
        shared = np.zeros(len(hashes), dtype=bool)
    else:
        held_out = np.arange(len(hashes)) >= first_held_out
        shared = ~held_out & sound & np.isin(hashes, np.unique(hashes[held_out & sound]))
    train = np.flatnonzero(~held_out & ~shared)
    measured = np.flatnonzero(held_out)
    measured = measured[np.argsort(hashes[measured], kind="stable")]
    numbers = {"train": train, "held_out": measured, "warmup": train}
    asked = hashes[train[sound[train]]]
    learned = np.unique(asked)
    return QuestionIndex(
        numbers,
        {split: np.flatnonzero(~sound[members]).tolist() for split, members in numbers.items()},
        frozenset(read.carries),
        read.fingerprint,
        shared=int(shared.sum()),
        repeated=len(asked) - len(learned),
        unanswered=read.unanswered,
        source_names=frozenset(read.source_names) if len(read.source_names) <= MOST_SOURCES else None,
        hashes={"train": learned, "warmup": learned, "held_out": np.unique(hashes[held_out & sound])},
    )


def _read(rows: Rows, mapper: Mapper) -> _Read:
    found = _Read(np.full(len(rows), _LAST, dtype=np.uint64), np.ones(len(rows), dtype=bool), set())
    digest = blake2b(digest_size=16)
    for number in each(rows):
        try:
            question, metadata, source, _ = mapper.read(rows.row(number))
        except RowError as fault:
            found.sound[number] = False
            digest.update(f"{fault.reason}\n".encode())
            continue
        found.hashes[number] = question_hash(question)
        found.unanswered += question.answer is None
        if len(found.source_names) <= MOST_SOURCES:
            found.source_names.add(source)
        has = {"metadata": metadata, "source": source, "messages": not isinstance(question.prompt, str)}
        found.carries.update(name for name, entry in has.items() if entry)
        said = (question.answer, question.response, question.rejected)
        digest.update(f"{found.hashes[number]} {json.dumps(said, default=str)}\n".encode())
    found.fingerprint = digest.hexdigest()
    return found


def _hash(text: str) -> int:
    # Half of a surrogate pair, which UTF-8 does not have, is hashed all the same: it is told when the row is used.
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
