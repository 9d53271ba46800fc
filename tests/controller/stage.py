"""Ranks that play the roles of `plays`, and a look at rows that lie elsewhere."""

from __future__ import annotations

import ray

from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import Group, ResourcePool, Supervisor, store
from hybridflow.dispatch import Call
from hybridflow.parallel.layout import Layout
from tests.controller import plays


class Stage:
    """A pool of light ranks and its supervisor."""

    def __init__(self, slots: int, supervisor: Supervisor | None = None) -> None:
        self.supervisor = supervisor or Supervisor()
        self.pool = ResourcePool("stage", slots, self.supervisor, plugins=[plays.__name__])

    def play(self, role: str, layout: Layout | None = None) -> Group:
        return self.pool.play(role, layout or Layout(data=self.pool.slots))


def fetch(ref: BatchRef) -> Batch:
    """The rows that a reference names, in this process."""
    message, objects = store.pack(Call((ref,)), None)
    rows: Batch = store.unpack(message, ray.get(objects)).args[0]
    return rows
