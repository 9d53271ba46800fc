"""Order of a step's rows in its minibatches."""

from __future__ import annotations

import numpy as np

from hybridflow.batch.balance import group_numbers
from hybridflow.batch.row_operations import even_sizes


def minibatch_rows(groups: np.ndarray, parts: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Shuffle groups of rows and cut them into parts of whole groups, of about the same number of rows.

    Rows of a group keep their order. Where each group has one row, rows are shuffled, and the parts are as even as
    `even_sizes`; so they are too, of shuffled groups that lie together, if whole groups would leave a part empty.

    Args:
        groups: [R] equal for rows of one group.

    Returns each part's row numbers; those beyond R are empty.
    """
    number = group_numbers(groups)
    count = int(number.max(initial=-1)) + 1
    place = np.argsort(generator.permutation(count))
    of_row = place[number]
    order = np.argsort(of_row, kind="stable")
    sizes = even_sizes(len(groups), parts)
    if parts <= count < len(groups):
        rows = np.bincount(of_row)
        middles = np.cumsum(rows) - rows / 2
        whole = np.bincount((middles * parts / len(groups)).astype(np.int64), weights=rows, minlength=parts)
        if whole.all():
            sizes = whole.astype(np.int64).tolist()
    return np.split(order, np.cumsum(sizes)[:-1])
