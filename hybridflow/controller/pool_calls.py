"""PoolCalls: what is asked of a pool's ranks that is no call on a role."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.supervisor import Supervisor
from hybridflow.runtime.messages import NodeView, Place


class PoolCalls:
    """Calls on the ranks that a pool has when they are made.

    Args:
        name: of the pool, whose settings errors name.
        within_s: that ranks have to report.
    """

    def __init__(self, pool: RankSource, name: str, supervisor: Supervisor, within_s: float) -> None:
        self._pool = pool
        self._key = f"placement.pools.{name}"
        self._supervisor = supervisor
        self._within_s = within_s
        self._meetings: list[str] = []

    def ask(self, method: str, *arguments: Any) -> CallRecord:
        """Make a call on every rank."""
        return self._watched(method, [self._made(rank, method, arguments) for rank in self._pool.ranks])

    def values(self, method: str, *arguments: Any) -> list[Any]:
        """Make a call on every rank, and return its values."""
        return self._supervisor.values(self.ask(method, *arguments))

    def values_in_line(self, method: str, *arguments: Any) -> list[Any]:
        """Return the values of a call that stands in line behind calls on roles, whose deadline it has."""
        calls = [self._made(rank, method, arguments) for rank in self._pool.ranks]
        return self._supervisor.values(self._supervisor.ask(self._key, method, calls, pool=self._pool, setting=""))

    def of_first(self, method: str) -> Any:
        """Return the value of a call on rank 0."""
        (value,) = self._supervisor.values(self._watched(method, [self._made(self._pool.ranks[0], method)]))
        return value

    def join(self, places: Sequence[Place], timeout_s: float, device: object) -> list[str]:
        """Let the ranks at these places meet; return the name of each one's device."""
        nodes = [place.node for place in places]
        meeting = self.meeting_point(places)
        calls = [
            self._made(handle, "join", (len(nodes), nodes[:rank].count(nodes[rank]), meeting, timeout_s, device))
            for rank, handle in enumerate(self._pool.ranks)
        ]
        return self._supervisor.values(self._watched("join", calls))

    def meeting_point(self, places: Sequence[Place]) -> str:
        """Return where ranks at these places can meet, as torch.distributed takes it; rank 0 is host."""
        if len({place.node for place in places}) == 1:  # a file, so that nothing listens
            self._meetings.append(self.of_first("make_meeting_folder"))
            return f"file://{self._meetings[-1]}/store"
        return f"tcp://{places[0].address}:{self.of_first('free_port')}"

    def forget_meetings(self) -> None:
        """Remove what ranks have met by."""
        for folder in self._meetings:
            shutil.rmtree(folder, ignore_errors=True)  # it is on the node of rank 0; if elsewhere, its next start does
        self._meetings.clear()

    def node_views(self, places: Sequence[Place], folders: Sequence[str], mark: str) -> list[tuple[str, NodeView]]:
        """Return for each node of these places its address, and how it sees these folders and this file."""
        nodes = [place.node for place in places]
        speakers = [nodes.index(node) for node in dict.fromkeys(nodes)]
        views = self.values("view_files", speakers, folders, mark)
        return [(places[rank].address, views[rank]) for rank in speakers]

    def _made(self, rank: Any, method: str, arguments: Sequence[Any] = ()) -> Any:
        return getattr(rank, method).remote(self._key, *arguments)

    def _watched(self, method: str, calls: Sequence[Any]) -> CallRecord:
        return self._supervisor.ask(self._key, method, calls, self._within_s, self._pool)
