"""What is concluded from the answers of another node, and from their absence; Ray is a stand-in."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from hybridflow.controller import away_node, process_watch
from hybridflow.controller.away_node import SAY_LOOKS, SILENT_LOOKS, AwayNode, refused
from hybridflow.controller.process_watch import LOST_NODE, ProcessWatch
from hybridflow.runtime.messages import Place

LISTENS_NOWHERE = ("127.0.0.1", 1)
UNREACHABLE = ray.exceptions.ActorUnavailableError("connection reset", None)


@dataclass
class Node:
    """What the actor on the node would answer; None: nothing, an exception: what Ray raises."""

    answer: Any = None
    actors: int = 0
    asked: int = field(default=0)

    def start_actor(self, node: str) -> Any:
        self.actors += 1
        return SimpleNamespace(states=SimpleNamespace(remote=self._ask), kill=SimpleNamespace(remote=lambda pid: None))

    def _ask(self, pids: list[int]) -> Node:
        self.asked += 1
        return self

    def wait(self, asked: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return ([], asked) if self.answer is None else (asked, [])

    def get(self, _: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node(["S"])
    monkeypatch.setattr(away_node, "_watcher_on", node.start_actor)
    stand_in = SimpleNamespace(wait=node.wait, get=node.get, exceptions=ray.exceptions)
    monkeypatch.setattr(away_node, "ray", stand_in)
    monkeypatch.setattr(process_watch, "ray", stand_in)
    monkeypatch.setattr(process_watch, "node_services", lambda: {"away": LISTENS_NOWHERE})
    return node


def test_the_answer_to_a_look_is_taken_in_at_the_next(node: Node) -> None:
    away = AwayNode("away", None)
    assert away.look([7]) == [] and away.look([7]) == ["S"] and node.asked == 2


def test_a_node_that_still_starts_is_not_silent(node: Node) -> None:
    node.answer = None
    away = AwayNode("away", None)
    for _ in range(2 * SILENT_LOOKS):
        assert away.look([7]) == []
    assert away.silent_looks == 0 and not away.lost and node.asked == 1, "it is asked once, and waited for"


def test_a_node_that_falls_silent_is_told_and_then_lost(node: Node) -> None:
    watch = ProcessWatch("main", [Place("away", "10.0.0.4", 7)], "here")
    for _ in range(3):
        watch.look()
    node.answer = None
    told = []
    assert watch.all_well()
    for _ in range(SILENT_LOOKS):
        assert watch.lost() == {}
        watch.look()
        told.append(watch.silent())
        assert not watch.all_well(), "what is not seen counts as detection"
    assert told == [[0] if look == SAY_LOOKS else [] for look in range(1, SILENT_LOOKS + 1)]
    assert watch.lost() == {0: LOST_NODE} and "has not answered for 20 s" in watch.lost_nodes()["away"]


def test_a_node_that_answers_in_time_is_silent_no_more(node: Node) -> None:
    away = AwayNode("away", None)
    away.look([7])
    away.look([7])
    for _ in range(3):
        node.answer = None
        for _ in range(SILENT_LOOKS - 1):
            away.look([7])
        node.answer = ["S"]
        assert away.look([7]) == ["S"] and away.silent_looks == 0 and not away.lost


def test_a_node_whose_service_is_gone_is_lost_at_once(node: Node) -> None:
    watch = ProcessWatch("main", [Place("away", "10.0.0.4", 7)], "here")
    node.answer = UNREACHABLE
    assert watch.why_lost(0) == "nothing listens any more at 127.0.0.1:1, where its Ray service was"
    assert watch.now_lost() == {0: LOST_NODE}


def test_an_actor_that_is_lost_alone_is_replaced(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        away = AwayNode("away", server.getsockname())
        node.answer = UNREACHABLE
        away.look([7])
        assert away.look([7]) == [] and not away.lost and node.actors == 2
        node.answer = ["T"]
        assert away.look([7]) == ["T"]


def test_what_ray_has_given_up_is_lost(node: Node) -> None:
    away = AwayNode("away", None)
    node.answer = ray.exceptions.RayActorError(error_msg="The actor died because its node has died.")
    away.look([7])
    away.look([7])
    assert away.lost == "Ray has lost it"


def test_the_rank_on_another_node_that_is_stopped_at_this_moment_is_found(node: Node) -> None:
    """Though no look had found it so: its peers complain sooner."""
    watch = ProcessWatch("main", [Place("away", "10.0.0.4", pid) for pid in (7, 8)], "here")
    node.answer = ["S", "T"]
    assert watch.now_lost() == {1: "stopped"}


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not refused(server.getsockname())
        service = server.getsockname()
    assert refused(service)
