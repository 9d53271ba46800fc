"""HeadWatch: asks the head of a cluster that was joined, once a second, whether it is there.

A head that was started with a Redis may be started again, and a run goes on meanwhile: ranks are called directly, and
rows travel between nodes. Only what the head itself is asked for waits. So Ray waits too, and ends every process if the
head does not come back in time. This watch tells at once, and ends the run before Ray would.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

RAYS_SETTING = "RAY_gcs_rpc_server_reconnect_timeout_s"
RAYS_S = 60.0
EARLIER_S = 10.0
ASK_EVERY_S = 1.0
ANSWER_S = 2.0
SAY_AFTER_S = 2.0
SAY_EVERY_S = 15.0
TAKEN_S = 4.0  # in which the main thread ends the run, unless it is inside of Ray, which waits for the head
METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"

log = logging.getLogger(__name__)


@dataclass
class HeadSilence:
    """How long the head has been silent, and what is to be said of it. Pure: who asks brings the time.

    Attributes:
        limit_s: after which the run ends.
        identity: what it answers; another answer is another cluster's.
        since: when it was first silent; None: it answers.
        other: another cluster answers in its place.
    """

    address: str
    limit_s: float
    identity: bytes | None = None
    since: float | None = None
    said_at: float | None = None
    other: bool = False

    def take_in(self, answer: bytes | None, now: float) -> str:
        """Take in an answer, None for none; return what is to be said now, if anything."""
        if answer is None:
            return self._silent(now)
        self.identity = self.identity or answer
        self.other = answer != self.identity
        since, said_at = self.since, self.said_at
        self.since = self.said_at = None
        if said_at is None or since is None or self.other:
            return ""
        return f"ray: the cluster's head at {self.address} answers again, after {now - since:.0f} s"

    def problem(self, now: float) -> str:
        """Say why the run must end; empty if it need not."""
        if self.other:
            return (
                f"ray: the head at {self.address} was started anew and knows nothing of this run: without a Redis "
                "(RAY_REDIS_ADDRESS; docs/reliability.md) it keeps nothing"
            )
        since = self.since  # which the thread that asks may change at any moment
        if since is None or now - since < self.limit_s:
            return ""
        return (
            f"ray: the cluster's head at {self.address} has not answered for {now - since:.0f} s, and without it "
            f"no process can be started or found; Ray waits no longer than {RAYS_SETTING}. If it is started again with "
            "its Redis by then, runs go on (docs/reliability.md)"
        )

    def _silent(self, now: float) -> str:
        if self.since is None:
            self.since = now
        due = self.since + SAY_AFTER_S if self.said_at is None else self.said_at + SAY_EVERY_S
        if now < due or self.problem(now):
            return ""
        self.said_at = now
        left = self.since + self.limit_s - now
        return (
            f"ray: the cluster's head at {self.address} has not answered for {now - self.since:.0f} s; the run goes on "
            f"as far as it can without, and ends unless the head comes back within {left:.0f} s"
        )


class HeadWatch:
    """Thread that watches the head of a cluster.

    Args:
        address: host and port.
        give_up: ends this process, whose main thread waits in Ray and would not hear that it must end.
    """

    def __init__(self, address: str, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        rays_s = float(os.environ.get(RAYS_SETTING, RAYS_S))
        self._silence = HeadSilence(address, max(rays_s - EARLIER_S, rays_s / 2))
        self._over = threading.Event()
        self._taken = False
        self._thread = threading.Thread(target=self._watch, args=(address,), name="head watch", daemon=True)
        self._thread.start()

    def answers(self) -> bool:
        """Tell whether it answered when it was asked last."""
        return self._silence.since is None and not self._silence.other

    def problem(self) -> str:
        """Say why the run must end, if it must; whoever asks sees to that."""
        problem = self._silence.problem(monotonic())
        self._taken = self._taken or bool(problem)
        return problem

    def close(self) -> None:
        """Watch no more."""
        self._over.set()
        self._thread.join(timeout=ANSWER_S + 1)

    def _watch(self, address: str) -> None:
        import grpc
        from ray._private.grpc_utils import init_grpc_channel

        with init_grpc_channel(address, options=[("grpc.max_reconnect_backoff_ms", 1000)]) as channel:
            ask = channel.unary_unary(METHOD)
            while not self._over.wait(ASK_EVERY_S):
                try:
                    answer = ask(b"", timeout=ANSWER_S)
                except grpc.RpcError:
                    answer = None
                if line := self._silence.take_in(answer, monotonic()):
                    log.warning("%s", line)
                self._end_if_stuck()

    def _end_if_stuck(self) -> None:
        """End the process by our last line before Ray does by one of its own, if the main thread cannot."""
        problem = self._silence.problem(monotonic() - TAKEN_S)
        if problem and not self._taken and not self._silence.other:
            self._give_up(problem)
