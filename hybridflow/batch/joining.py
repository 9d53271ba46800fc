"""Rows of several references as those of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from hybridflow.batch.batch_ref import BatchRef, Origin
from hybridflow.batch.lineage import KIN, distinct_groups, joined, new_kin
from hybridflow.batch.row_source import Source, end_to_end


def concat(refs: Sequence[BatchRef]) -> BatchRef:
    """Join rows end to end. Raises ValueError if the columns differ.

    Groups of one `repeat` stay what they are, parts of them become whole again; groups of several, which are strangers
    to each other, are numbered anew where they have the same numbers.
    """
    if not refs:
        return BatchRef(0, ())
    sources = _joined(refs)
    marks = {name: np.concatenate([ref.driver_columns[name] for ref in refs]) for name in refs[0].driver_columns}
    lineage = (
        joined([(ref.rows, ref.lineage, ref.driver_columns) for ref in refs])
        if any(ref.lineage for ref in refs)
        else {}
    )
    if "group_id" in marks and KIN in lineage:
        marks["group_id"] = distinct_groups(marks["group_id"], lineage[KIN])
    return BatchRef(sum([ref.rows for ref in refs]), sources, marks, _origin(refs), lineage)


def _joined(refs: Sequence[BatchRef]) -> tuple[Source, ...]:
    """Join the sources of rows end to end. Raises ValueError if the columns differ."""
    orders = {(*[source.columns for source in ref.sources], *ref.driver_columns) for ref in refs}
    if len(orders) == 1:  # as ranks give them
        parts = zip(*[ref.sources for ref in refs], strict=True)
        return tuple([end_to_end(part[0].columns, [run for source in part for run in source.runs]) for part in parts])
    if len({frozenset(ref.columns) for ref in refs}) > 1:
        raise ValueError(f"cannot join rows with different columns: {[ref.columns for ref in refs]}")
    together: dict[tuple[int, ...], list[str]] = {}  # columns that share a source in every one of them
    places = [{name: number for number, s in enumerate(ref.sources) for name in s.columns} for ref in refs]
    for name in places[0]:
        together.setdefault(tuple(place[name] for place in places), []).append(name)
    return tuple(
        end_to_end(
            columns, [run for ref, number in zip(refs, numbers, strict=True) for run in ref.sources[number].runs]
        )
        for numbers, columns in together.items()
    )


def stacked(refs: Sequence[BatchRef]) -> BatchRef:
    """Join rows in groups that are all strangers: they are numbered anew, 0, 1, … from end to end.

    Raises KeyError if the rows are in no groups.
    """
    numbered = []
    groups = 0
    for ref in refs:
        _, group = np.unique(ref._key("group_id"), return_inverse=True)
        places = {name: values for name, values in ref.lineage.items() if name != KIN}
        numbered.append(replace(ref, driver_columns={**ref.driver_columns, "group_id": group + groups}, lineage=places))
        groups += int(group.max(initial=-1)) + 1
    rows = concat(numbered)
    if not numbered:
        return rows
    return replace(rows, lineage={**rows.lineage, KIN: new_kin(rows.driver_columns["group_id"])})


def _origin(refs: Sequence[BatchRef]) -> Origin | None:
    """Return the origin of rows end to end, if it is known of all of them; a range where it can be."""
    known = [ref.origin for ref in refs if ref.origin is not None]
    if len(known) < len(refs):
        return None
    filled = [part for part in known if len(part)]
    if all(isinstance(part, range) for part in filled) and all(a[-1] + 1 == b[0] for a, b in pairwise(filled)):
        return range(filled[0][0], filled[-1][-1] + 1) if filled else range(0)
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in known])
