"""Numbers that are made of what they stand for: the same in every process and in every run."""

from __future__ import annotations

from hashlib import blake2b


def hashed_id(content: bytes) -> int:
    """Return 63 bits of a hash, which an int64 that is not negative has room for."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") >> 1
