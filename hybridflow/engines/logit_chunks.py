"""Chunks of tokens whose logits exist at a time; who asks what memory an engine takes needs no torch for it."""

from __future__ import annotations

LOGITS_BYTES = 256 * 2**20  # of one chunk's float32 logits; a chunk takes twice that


def tokens_of_chunk(vocabulary: int) -> int:
    """Return the tokens of a chunk, for as many rows of the output layer."""
    return max(1, LOGITS_BYTES // (4 * vocabulary))
