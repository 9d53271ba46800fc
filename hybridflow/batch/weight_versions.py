"""`weight_version`: which weights sampled which tokens of a response, as runs of tokens.

It is a ragged column of pairs: of each row [K, 2] int64, (weight version, number of tokens), in the order of the tokens
and together as many as the response has. A response that one version sampled has one run. One that was interrupted and
went on with newer weights has a run for each of them. What an environment said, no weights sampled: a run of
`NO_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hybridflow.batch.columns import Ragged, offsets_of

WEIGHT_VERSION = "weight_version"
NO_VERSION = -1


def one_run(version: int, lengths: np.ndarray) -> Ragged:
    """Return the runs of rows that one version sampled whole.

    Args:
        lengths: [R] int64, tokens of each response.
    """
    values = np.stack([np.full(len(lengths), version, dtype=np.int64), lengths.astype(np.int64)], axis=1)
    return Ragged(values, offsets_of(np.ones(len(lengths), dtype=np.int64)))


def several_runs(rows: Sequence[Sequence[tuple[int, int]]]) -> Ragged:
    """Return the runs of rows that several versions may have sampled: of each (version, number of tokens)."""
    return Ragged.of([np.array(runs, dtype=np.int64).reshape(-1, 2) for runs in rows], np.int64)


def sampled_runs(runs: Ragged, sampled: Sequence[np.ndarray]) -> Ragged:
    """Return runs of which the tokens that no weights sampled are of `NO_VERSION`.

    Args:
        sampled: of each row [N], 0 at these tokens.
    """
    return several_runs([_split(pairs, flags) for pairs, flags in zip(runs, sampled, strict=True)])


def refuse_other_tokens(runs: Ragged, lengths: np.ndarray) -> None:
    """Raise ValueError for runs that are no pairs, or not of as many tokens as their responses have ([R] `lengths`)."""
    if len(runs) and runs.values.shape[1:] != (2,):
        trailing = list(runs.values.shape[1:])
        raise ValueError(f"{WEIGHT_VERSION} has entries of shape {trailing}; give runs, each a pair (version, tokens)")
    counted = np.bincount(_rows(runs), weights=_pairs(runs)[:, 1], minlength=len(runs)).astype(np.int64)
    wrong = np.flatnonzero((counted != lengths) | (runs.lengths == 0))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{WEIGHT_VERSION} of row {row} is {runs[row].tolist()}, {counted[row]} tokens of a response of "
            f"{lengths[row]}; give each row runs (version, tokens) that together are its response, and at least one"
        )


def cut_runs(runs: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the runs of the tokens from `start` to `stop`, without it, of a response with these runs, [K, 2]."""
    ends = np.cumsum(runs[:, 1])
    inside = np.minimum(ends, stop) - np.maximum(ends - runs[:, 1], start)
    kept = inside > 0
    return np.stack([runs[kept, 0], inside[kept]], axis=1)


def row_lags(runs: Ragged, version: int) -> np.ndarray:
    """Return [R] float64: how many versions weights are ahead of those that sampled a row, the mean over these tokens.

    Of a row without tokens it is the mean over its runs, and 0 of one that no weights sampled.
    """
    versions, tokens = _pairs(runs).T
    rows = _rows(runs)
    tokens = np.where(versions == NO_VERSION, 0, tokens)
    total = np.bincount(rows, weights=tokens, minlength=len(runs))
    weights = np.where(total[rows] > 0, tokens, versions != NO_VERSION)
    behind = np.bincount(rows, weights=(version - versions) * weights, minlength=len(runs))
    counted = np.bincount(rows, weights=weights, minlength=len(runs))
    lags: np.ndarray = behind / np.where(counted > 0, counted, 1.0)
    return lags


def largest_lag(runs: Ragged, version: int) -> int:
    """Return how many versions weights are ahead of the oldest that sampled anything; 0 of no rows."""
    versions = _pairs(runs)[:, 0]
    return int((version - versions[versions != NO_VERSION]).max(initial=0))


def shown(runs: ArrayLike) -> int | list[list[int]]:
    """Return one row's runs for a file that people read: the version alone if one sampled it, else the pairs."""
    pairs: list[list[int]] = np.asarray(runs, dtype=np.int64).tolist()
    versions = {version for version, _ in pairs} - {NO_VERSION}
    return versions.pop() if len(versions) == 1 else pairs


def _split(pairs: np.ndarray, sampled: np.ndarray) -> list[tuple[int, int]]:
    """Return one row's runs as `sampled_runs` gives them; those of no tokens stay where there are no others."""
    versions = np.where(sampled, np.repeat(pairs[:, 0], pairs[:, 1]), NO_VERSION)
    if not len(versions):
        return [(version, tokens) for version, tokens in pairs.tolist()]
    starts = np.flatnonzero(np.diff(versions, prepend=versions[0] - 1))
    return list(zip(versions[starts].tolist(), np.diff(starts, append=len(versions)).tolist(), strict=True))


def _pairs(runs: Ragged) -> np.ndarray:
    """Return the runs as [K, 2], also of no rows, which do not know the shape of their entries."""
    return runs.values.reshape(-1, 2)


def _rows(runs: Ragged) -> np.ndarray:
    """Return the row that each run belongs to, [K] int64."""
    return np.repeat(np.arange(len(runs)), runs.lengths)
