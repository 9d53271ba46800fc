"""ProcessWatch: the supervisor's ping of a pool's ranks. It asks their nodes, so that no rank has to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ray

from hybridflow.controller.away_node import SAY_LOOKS, AwayNode, node_services
from hybridflow.runtime.messages import Place
from hybridflow.runtime.process_state import GONE, STOPPED, NodeWatcher, is_rays

PING_EVERY_S = 1.0
STOPPED_LOOKS = 3  # one after the other; if the driver was stopped too, as by Ctrl-Z, it does not count meanwhile
GONE_LOOKS = 6  # Ray has told by then, and says more
NOW_S = 2.0  # that other nodes have to say what is so at this moment
FIRST_S = 10.0  # the first time: what answers there is still starting
LOST_NODE = "node lost"


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
        away = {place.node for place in places} - near
        services = node_services() if away else {}
        self._away = {node: AwayNode(node, services.get(node)) for node in away}

    def look(self) -> None:
        """Count one more look at every process. Another node is asked, and its answer taken in at a later look."""
        for node, ranks in self._by_node().items():
            pids = [self.places[rank].pid for rank in ranks]
            states = self._away[node].look(pids) if node in self._away else self._local.states(pids)
            for rank, state in zip(ranks, states, strict=False):
                self.counts.take_in(rank, state)

    def all_well(self) -> bool:
        """Tell whether no process was stopped or gone at the last look, and every node with some has answered it."""
        return self.counts.all_well() and not any(away.silent_looks or away.lost for away in self._away.values())

    def lost(self) -> dict[int, str]:
        """Return the ranks that are lost, by the looks so far, and what their processes are."""
        lost_nodes = self.lost_nodes()
        of_node = {rank: LOST_NODE for rank, place in enumerate(self.places) if place.node in lost_nodes}
        return self.counts.lost() | of_node

    def now_lost(self) -> dict[int, str]:
        """Return the ranks whose processes are stopped or gone at this moment; other nodes are asked, all at once."""
        lost = self.lost()
        for rank, state in self._states_now().items():
            if state == STOPPED or state in GONE:
                lost[rank] = "stopped" if state == STOPPED else "gone"
        return lost | self.lost()

    def lost_nodes(self) -> dict[str, str]:
        """Return the nodes that must be taken for lost, and why."""
        return {node: away.lost for node, away in self._away.items() if away.lost}

    def why_lost(self, rank: int) -> str:
        """Say why the node of a rank is lost, as it is at this moment; empty if it is not."""
        node = self.places[rank].node
        if node in self._away:
            self._states_now()
        return self.lost_nodes().get(node, "")

    def silent(self) -> list[int]:
        """Return the first rank on each node that has just been silent for so long that it should be said."""
        return [ranks[0] for node, ranks in self._by_node().items() if self._silent_looks(node) == SAY_LOOKS]

    def stacks(self, rank: int) -> str:
        """Return the stacks of a rank's threads, or why there are none."""
        place = self.places[rank]
        return self._watcher(rank).stacks(place.pid, place.stacks)

    def kill(self, rank: int) -> None:
        """End a rank's process, also one that is stopped and so would not hear of it."""
        self._watcher(rank).kill(self.places[rank].pid)

    def close(self) -> None:
        """Let those on other nodes go."""
        for away in self._away.values():
            away.close()

    def _watcher(self, rank: int) -> AwayNode | NodeWatcher:
        return self._away.get(self.places[rank].node, self._local)

    def _silent_looks(self, node: str) -> int:
        return self._away[node].silent_looks if node in self._away else 0

    def _by_node(self) -> dict[str, list[int]]:
        by_node: dict[str, list[int]] = {}
        for rank, place in enumerate(self.places):
            by_node.setdefault(place.node, []).append(rank)
        return by_node

    def _states_now(self) -> dict[int, str]:
        """Return the state of each rank's process; of nodes that do not answer soon, nothing."""
        by_node = self._by_node()
        pids = {node: [self.places[rank].pid for rank in ranks] for node, ranks in by_node.items()}
        asked = [answer for node, away in self._away.items() if (answer := away.ask(pids[node])) is not None]
        if asked:
            started = all(away.has_answered for away in self._away.values())
            ray.wait(asked, num_returns=len(asked), timeout=NOW_S if started else FIRST_S)
        states: dict[int, str] = {}
        for node, ranks in by_node.items():
            found = self._away[node].answered() if node in self._away else self._local.states(pids[node])
            states |= dict(zip(ranks, found, strict=False))
        return states
