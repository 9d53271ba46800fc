"""StepShape: how long a step is, given the seconds that each set of colocated roles works between what others wait for.

A pool takes its calls in the order of the flow, each once its rows are there; so a step is the longest way through a
graph of calls. That is never more than the paper's sum over stages of the longest set (arXiv 2409.19256, Algorithm 1),
whose stages all sets enter together. It grows with each call's seconds, which is what the search prunes by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np

from hybridflow.planning.run_spec import SYNC, FlowCall


class Kind(Enum):
    """Part of a step that a call belongs to, where steps overlap."""

    sync = auto()
    sampling = auto()
    learning = auto()


def kind_of(call: FlowCall) -> Kind:
    """Return what a call is part of."""
    if call.method == SYNC:
        return Kind.sync
    return Kind.sampling if call.samples else Kind.learning


def segments(flow: Sequence[FlowCall], mine: Sequence[int], split: Set[Kind]) -> tuple[tuple[int, ...], ...]:
    """Group the calls of one pool, by their places in the flow, whose seconds only count as a sum.

    Two neighbors are a group if nobody else waits for the first without waiting for the second as well, and the second
    waits for nobody that the pool has not waited for before.

    Args:
        split: kinds of calls that are never one group with another kind.
    """
    own = set(mine)
    waits: dict[int, set[int]] = {place: set(flow[place].after) - own for place in mine}
    heard = {place: {i for i, call in enumerate(flow) if i not in own and place in call.after} for place in mine}
    groups: list[list[int]] = []
    waited: set[int] = set()
    for place in mine:
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and heard[last] <= heard[place]
            and waits[place] <= waited
            and (len(kinds := {kind_of(flow[last]), kind_of(flow[place])}) == 1 or not kinds & split)
        ):
            groups[-1].append(place)
        else:
            groups.append([place])
        waited |= waits[place]
    return tuple(map(tuple, groups))


@dataclass(frozen=True)
class StepShape:
    """Flow of a step over sets of roles.

    Attributes:
        owners: the set of each call, by the call's place in the flow.
        apart: weights are synced from one set to another, which takes longer by what is seen of both together.
        overlaps: a step is sampled while another is learned from, so that only the longer of the two counts, and what
            a pool has to do for both; between them weights are synced.
    """

    flow: tuple[FlowCall, ...]
    owners: tuple[int, ...]
    overlaps: bool = False
    apart: bool = False

    @cached_property
    def segments(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Groups of calls by set; the seconds of a set are one number for each."""
        calls: list[list[int]] = [[] for _ in range(max(self.owners) + 1)]
        for place, owner in enumerate(self.owners):
            calls[owner].append(place)
        return tuple(segments(self.flow, mine, self._split) for mine in calls)

    @property
    def _split(self) -> Set[Kind]:
        """Return the kinds of calls that count by themselves."""
        return set(Kind) if self.overlaps else {Kind.sync} if self.apart else set()

    def seconds(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the seconds of steps.

        Args:
            parts: by set, [..., groups] seconds; their leading axes are broadcast.
        """
        if not self.overlaps:
            return self._makespan(parts, set(Kind))
        both = np.maximum(self._makespan(parts, {Kind.sampling}), self._makespan(parts, {Kind.learning}))
        for owner, groups in enumerate(self.segments):
            busy = _ZERO
            for number, group in enumerate(groups):
                if kind_of(self.flow[group[0]]) is not Kind.sync:
                    busy = busy + parts[owner][..., number]
            both = np.maximum(both, busy)
        return both + self._makespan(parts, {Kind.sync})

    def _makespan(self, parts: Sequence[np.ndarray], kinds: Set[Kind]) -> np.ndarray:
        """Return when the last call of some kinds ends, if there are no others."""
        ends: dict[int, np.ndarray] = {}
        free: dict[int, np.ndarray] = {}
        for place, call in enumerate(self.flow):
            if kind_of(call) not in kinds:
                continue
            owner = self.owners[place]
            begin = free.get(owner, _ZERO)
            for other in call.after:
                if other in ends and ends[other] is not begin:
                    begin = np.maximum(begin, ends[other])
            group = self._firsts.get(place)
            ends[place] = free[owner] = begin if group is None else begin + parts[owner][..., group]
        end = _ZERO
        for last in free.values():
            end = np.maximum(end, last)
        return end

    @cached_property
    def _firsts(self) -> Mapping[int, int]:
        """Number of the group that begins with a call."""
        return {group[0]: number for groups in self.segments for number, group in enumerate(groups)}


_ZERO = np.zeros(())
