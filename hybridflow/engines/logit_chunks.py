"""Chunks of tokens whose logits exist at a time; who asks what memory an engine takes needs no torch for it."""

from __future__ import annotations

LOGITS_BYTES = 256 * 2**20  # of one chunk's float32 logits
BLOCK_BYTES = 2 * 2**20  # of those that a CPU passes over again and again while they are in its caches


def tokens_of_chunk(vocabulary: int) -> int:
    """Return the tokens of a chunk, for as many rows of the output layer."""
    return max(1, LOGITS_BYTES // (4 * vocabulary))


def tokens_of_block(vocabulary: int, *, accelerated: bool) -> int:
    """Return the tokens of a chunk whose logits are worked on together: on a GPU all, which is one kernel a pass."""
    return tokens_of_chunk(vocabulary) if accelerated else max(1, BLOCK_BYTES // (4 * vocabulary))
