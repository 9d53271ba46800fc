"""Records of a rollout journal: finished rows as bytes that are known to be whole, or not to be.

A journal is records end to end, each a frame and a safetensors file of R rows that finished together:

    8 bytes   HFROWS1 and a line feed
    8 bytes   the length of what follows the frame, little-endian
    4 bytes   its CRC-32, little-endian
              `conditions` (a text as bytes), `seeds` and `prompts` ([R] int64), `offsets` ([R + 1] int64), `tokens` and
              `log_probs` (end to end), `ended_by` (a list in JSON as bytes), `cached_tokens` ([R] int64)

A process that is killed leaves a part of its last record. So does a disk that is full; after either nothing follows.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import FinishedRow, Generated

MAGIC = b"HFROWS1\n"
FRAME = struct.Struct("<8sQI")


class Span(NamedTuple):
    """Place of a whole record in a journal, without its frame."""

    start: int
    stop: int


class Record(NamedTuple):
    """Rows that finished together.

    Attributes:
        conditions: all that was alike for them, in JSON: see `rollout_journal.conditions_of`.
        seeds: [R] int64, of their random streams: which row of which call of which step each is.
        prompts: [R] int64, `prompt_digest` of each one's prompt.
        rows: the rows, numbered in this record.
    """

    conditions: str
    seeds: np.ndarray
    prompts: np.ndarray
    rows: Sequence[FinishedRow]


def encode(record: Record) -> bytes:
    """Encode a record with its frame."""
    made = Generated.of(row._replace(row=number) for number, row in enumerate(record.rows))
    payload = save(
        {
            "conditions": _text(record.conditions),
            "seeds": np.ascontiguousarray(record.seeds, dtype=np.int64),
            "prompts": np.ascontiguousarray(record.prompts, dtype=np.int64),
            "offsets": np.ascontiguousarray(made.tokens.offsets),
            "tokens": np.ascontiguousarray(made.tokens.values),
            "log_probs": np.ascontiguousarray(made.log_probs.values),
            "ended_by": _text(json.dumps(made.ended_by.tolist())),
            "cached_tokens": np.ascontiguousarray(made.cached_tokens),
        }
    )
    return FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> Record:
    """Decode a record without its frame. Raises ValueError if it is whole, and yet none that `encode` makes."""
    try:
        arrays = load(payload)
        offsets = arrays["offsets"]
        tokens = Ragged(arrays["tokens"], offsets)
        log_probs = Ragged(arrays["log_probs"], offsets)
        ended_by = json.loads(arrays["ended_by"].tobytes())
        cached = arrays["cached_tokens"].tolist()
        rows = [FinishedRow(n, tokens[n], log_probs[n], ended_by[n], cached[n]) for n in range(len(tokens))]
        conditions = arrays["conditions"].tobytes().decode()
        seeds = arrays["seeds"]
        prompts = arrays["prompts"]
        json.loads(conditions).keys()
    except (SafetensorError, KeyError, IndexError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not seeds.shape == prompts.shape == (len(rows),):
        raise ValueError(f"{len(rows)} rows with {seeds.shape} seeds and {prompts.shape} prompts")
    return Record(conditions, seeds, prompts, rows)


def whole_records(journal: BinaryIO, size: int) -> Iterator[tuple[Span, bytes]]:
    """Yield where the records in the first `size` bytes are, and each without its frame, up to one that is not whole.

    One is in memory at a time.
    """
    end = 0
    while size - end >= FRAME.size:
        journal.seek(end)
        frame = journal.read(FRAME.size)
        if len(frame) < FRAME.size:
            return
        magic, length, checksum = FRAME.unpack(frame)
        start = end + FRAME.size
        end = start + length
        if magic != MAGIC or end > size:
            return
        payload = journal.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield Span(start, end), payload


def prompt_digest(prompt: np.ndarray) -> int:
    """Return a number of 64 bits, with a sign, that another prompt ([N] token ids) does not have."""
    digest = blake2b(np.ascontiguousarray(prompt, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)
