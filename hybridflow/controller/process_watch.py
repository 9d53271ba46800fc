"""ProcessWatch: the supervisor's ping of a pool's ranks. It asks their nodes, so that no rank has to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hybridflow.runtime.messages import Place
from hybridflow.runtime.process_state import GONE, STOPPED, NodeWatcher, is_rays

PING_EVERY_S = 1.0
STOPPED_LOOKS = 3  # one after the other; if the driver was stopped too, as by Ctrl-Z, it does not count meanwhile
GONE_LOOKS = 6  # Ray has told by then, and says more
ANSWER_S = 5.0  # of another node, for stacks


@dataclass
class LookCounts:
    """Number of looks, one after the other, at which each process was in a state that it must not stay in. Pure."""

    stopped: dict[int, int] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)

    def take_in(self, rank: int, state: str) -> None:
        """Count one more look at a rank's process."""
        self.stopped[rank] = self.stopped.get(rank, 0) + 1 if state == STOPPED else 0
        self.gone[rank] = self.gone.get(rank, 0) + 1 if state in GONE else 0

    def lost(self) -> dict[int, str]:
        """Return the ranks that have been so for too long, and what their processes are."""
        stopped = {rank: "stopped" for rank, looks in self.stopped.items() if looks >= STOPPED_LOOKS}
        return stopped | {rank: "gone" for rank, looks in self.gone.items() if looks >= GONE_LOOKS}

    def all_well(self) -> bool:
        """Tell whether no process was stopped or gone at the last look."""
        return not any(self.stopped.values()) and not any(self.gone.values())

    def suspected(self) -> list[int]:
        """Return the ranks that were found stopped for the first time."""
        return [rank for rank, looks in self.stopped.items() if looks == 1]


class ProcessWatch:
    """Looks after the processes of one pool, on whatever nodes they are.

    Args:
        here: the id of this process's node.
    """

    def __init__(self, name: str, places: Sequence[Place], here: str) -> None:
        self.name = name
        self.places = places
        self.counts = LookCounts()
        self._local = NodeWatcher()
        # A driver may have its node's id and see other processes, as in a container, or through Ray's client.
        near = {here} if all(is_rays(place.pid) for place in places if place.node == here) else set()
        self._away = {node: _watcher_on(node) for node in {place.node for place in places} - near}
        self._asked: dict[str, Any] = {}

    def look(self) -> None:
        """Count one more look at every process. Another node is asked, and its answer taken in at a later look."""
        by_node: dict[str, list[int]] = {}
        for rank, place in enumerate(self.places):
            by_node.setdefault(place.node, []).append(rank)
        for node, ranks in by_node.items():
            for rank, state in zip(ranks, self._states(node, [self.places[rank].pid for rank in ranks]), strict=False):
                self.counts.take_in(rank, state)

    def now_lost(self) -> dict[int, str]:
        """Return the ranks whose processes are stopped or gone at this moment, as far as this node knows."""
        lost = self.counts.lost()
        for rank, place in enumerate(self.places):
            if place.node in self._away:
                continue
            (state,) = self._local.states([place.pid])
            if state == STOPPED or state in GONE:
                lost[rank] = "stopped" if state == STOPPED else "gone"
        return lost

    def stacks(self, rank: int) -> str:
        """Return the stacks of a rank's threads, or why there are none."""
        place = self.places[rank]
        if place.node not in self._away:
            return self._local.stacks(place.pid, place.stacks)
        try:
            return str(ray.get(self._away[place.node].stacks.remote(place.pid, place.stacks), timeout=ANSWER_S))
        except (ray.exceptions.RayError, TimeoutError):
            return "no stacks: its node does not answer"

    def kill(self, rank: int) -> None:
        """End a rank's process, also one that is stopped and so would not hear of it."""
        place = self.places[rank]
        if place.node in self._away:
            self._away[place.node].kill.remote(place.pid)
        else:
            self._local.kill(place.pid)

    def close(self) -> None:
        """Let those on other nodes go."""
        for watcher in self._away.values():
            ray.kill(watcher)

    def _states(self, node: str, pids: list[int]) -> list[str]:
        """Return what is known of these processes now; nothing if their node has not answered yet."""
        if node not in self._away:
            return self._local.states(pids)
        states: list[str] = []
        if node in self._asked:
            if not ray.wait([self._asked[node]], timeout=0)[0]:
                return states  # whether a node that is silent is lost is Ray's to say
            try:
                states = ray.get(self._asked.pop(node))
            except ray.exceptions.RayError:
                return states
        self._asked[node] = self._away[node].states.remote(pids)
        return states


def _watcher_on(node: str) -> Any:
    options = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    return ray.remote(NodeWatcher).options(**options).remote()
