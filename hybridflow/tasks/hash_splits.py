"""Splits of pairs of numbers by a hash, so that it is the same in every process and for every size."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from hybridflow.bounds import Bounds

MAX_OPERAND = 999  # every pair is listed; beyond this the list would not be small
Operand = Annotated[int, Bounds(at_least=1, at_most=MAX_OPERAND)]
Fraction = Annotated[float, Bounds(more_than=0, less_than=1)]


def split_pairs(name: str, low: int, high: int, held_out: float, warmup: float) -> dict[str, np.ndarray]:
    """List all pairs of numbers from `low` to `high` by split; (a, b) and (b, a) are always in the same one.

    Args:
        name: the task's, for messages.
        held_out: the share of all pairs that is `held_out`.
        warmup: the share of `train` that is also `warmup`.

    Returns:
        For each split [n, 2] int64 pairs, in an order that has nothing to do with the numbers' sizes.

    Raises:
        ValueError: a number or a share is outside its range, or a split would be empty.
    """
    if not low < high <= MAX_OPERAND:
        raise ValueError(f"{name}: max_operand is {high}, a number from {low + 1} to {MAX_OPERAND} was expected")
    for option, value in {"held_out_fraction": held_out, "warmup_fraction": warmup}.items():
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name}: {option} is {value}, a number between 0 and 1 was expected")
    span = high - low + 1
    pairs = np.stack(np.divmod(np.random.default_rng(0).permutation(span * span), span), axis=1) + low
    share = share_of_pair(pairs[:, 0], pairs[:, 1])
    splits = {
        "train": pairs[share >= held_out],
        "held_out": pairs[share < held_out],
        "warmup": pairs[(share >= held_out) & (share < held_out + (1 - held_out) * warmup)],
    }
    for split, members in splits.items():
        if not len(members):
            raise ValueError(
                f"{name}: no pair of numbers falls into split {split!r}: raise max_operand or {split}_fraction"
            )
    return splits


def share_of_pair(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hash each unordered pair to a number spread evenly over [0, 1), [n]: (a, b) and (b, a) get the same.

    The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014, figure 16), on both numbers in one 64-bit word.

    Args:
        a, b: [n] integers from 0 to 2³² - 1.
    """
    low, high = np.minimum(a, b).astype(np.uint64), np.maximum(a, b).astype(np.uint64)
    z = (low << np.uint64(32)) + high + np.uint64(0x9E3779B97F4A7C15)  # wraps, as it should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2.0**53
