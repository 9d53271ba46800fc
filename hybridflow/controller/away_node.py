"""AwayNode: another node with processes of a pool. An actor of ours there answers for them, by direct calls, which the
cluster's head need not pass on.
"""

from __future__ import annotations

import socket
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hybridflow.runtime.process_state import NodeWatcher

ANSWER_S = 5.0  # for stacks
KNOCK_S = 1.0
SAY_LOOKS = 5
SILENT_LOOKS = 20  # a machine that swaps may be silent for a while; Ray itself waits for more than a minute
UNSCHEDULABLE = ray.exceptions.ActorUnschedulableError


class AwayNode:
    """Asks one node for the state of processes there.

    Args:
        node: its id.
        service: host and port of Ray's service there; None: they are not known.

    Attributes:
        silent_looks: looks, one after the other, at which a question of before was still open.
        has_answered: until then the actor starts, which takes as long as it takes.
        lost: why the node must be taken for lost; empty if it need not.
    """

    def __init__(self, node: str, service: tuple[str, int] | None) -> None:
        self.silent_looks = 0
        self.has_answered = False
        self.lost = ""
        self._node = node
        self._service = service
        self._asked: Any = None
        self._watcher = _watcher_on(node)

    def look(self, pids: list[int]) -> list[str]:
        """Return what was answered to the last look, if it was, and ask again; do not wait."""
        was_asked = self._asked is not None
        states = self.answered()
        silent = was_asked and self.has_answered and not states
        self.silent_looks = self.silent_looks + 1 if silent else 0
        if self.silent_looks >= SILENT_LOOKS:
            self.lost = f"it has not answered for {SILENT_LOOKS} s"
        if self._asked is None:
            self.ask(pids)
        return states

    def ask(self, pids: list[int]) -> Any:
        """Ask for the state of processes as it is from now on; return the reference to the answer; None: it is lost."""
        self._asked = None if self.lost else self._watcher.states.remote(pids)
        return self._asked

    def answered(self) -> list[str]:
        """Return the answer that has come by now; nothing if there is none."""
        if self._asked is None or not ray.wait([self._asked], timeout=0)[0]:
            return []
        asked, self._asked = self._asked, None
        try:
            states: list[str] = ray.get(asked)
        except ray.exceptions.RayError as error:
            self._judge(error)
            return []
        self.has_answered = True
        return states

    def stacks(self, pid: int, descriptor: int) -> str:
        """Return the stacks of a process there, or why there are none."""
        try:
            return str(ray.get(self._watcher.stacks.remote(pid, descriptor), timeout=ANSWER_S))
        except (ray.exceptions.RayError, TimeoutError):
            return "no stacks: its node does not answer"

    def kill(self, pid: int) -> None:
        """End a process there, also one that is stopped."""
        self._watcher.kill.remote(pid)

    def close(self) -> None:
        """Let the actor go."""
        ray.kill(self._watcher)

    def _judge(self, error: ray.exceptions.RayError) -> None:
        """Decide whether the node is lost, or only the actor; then it gets another one."""
        if self._service is not None and refused(self._service):
            self.lost = f"nothing listens any more at {self._service[0]}:{self._service[1]}, where its Ray service was"
        elif "node has died" in str(error) or isinstance(error, UNSCHEDULABLE):
            self.lost = "Ray has lost it"
        else:
            self.has_answered = False
            self._watcher = _watcher_on(self._node)


def refused(service: tuple[str, int]) -> bool:
    """Tell whether a machine says that nothing listens there, or the network that there is no such machine."""
    try:
        socket.create_connection(service, timeout=KNOCK_S).close()
    except TimeoutError:  # it may be slow
        return False
    except OSError:
        return True
    return False


def node_services() -> dict[str, tuple[str, int]]:
    """Return, by the id of each node, host and port of Ray's service there. Asks the cluster's head."""
    return {node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in ray.nodes()}


def _watcher_on(node: str) -> Any:
    options = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    return ray.remote(NodeWatcher).options(**options).remote()
