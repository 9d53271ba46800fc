"""Services of a cluster without which no run goes on: what Ray itself would only tell after a minute.

Those of a cluster that this process started are looked at on a thread of their own. Where the main thread waits for one
that is stopped, as when rows are put into the store or an actor is ended, it looks at nothing any more, and no signal
reaches it. Of a cluster that was joined the head is asked (`head_watch`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import ray

from hybridflow.controller.head_watch import HeadWatch
from hybridflow.errors import ClusterError, HybridFlowError
from hybridflow.observe import terminal
from hybridflow.runtime import meeting_folder
from hybridflow.runtime.process_state import GONE, STOPPED, state_of
from hybridflow.tasks.grading_guard import descendants

NAMES = {"gcs_server": "head service", "raylet": "node service"}
LOOK_EVERY_S = 0.5
PATIENCE = 3  # looks at a service that is stopped; if this process was stopped too, as by Ctrl-Z, there are none
UNHEARD = 6  # looks after a loss: the main thread hears of one within 1.5 s, unless it waits for the service itself


class ServiceWatch:
    """Looks after the services of one cluster.

    Args:
        pids: of the services, by name.
        waits: tells whether the main thread waits in Ray.
        give_up: ends this process, whose main thread would wait for a service that is lost.
    """

    def __init__(
        self, pids: dict[str, int], waits: Callable[[], bool], give_up: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._pids = pids
        self._waits = waits
        self._give_up = give_up
        self._stopped_looks = dict.fromkeys(pids, 0)
        self._unheard = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Look every so often, until `stop`."""
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def stop(self) -> None:
        """Look no more: they are about to be ended."""
        self._over.set()

    def look(self) -> None:
        """Look at each once more."""
        for name, pid in self._pids.items():
            stopped = state_of(pid) == STOPPED
            self._stopped_looks[name] = self._stopped_looks[name] + 1 if stopped else 0
        self._unheard = self._unheard + 1 if self.lost() and self._waits() else 0
        if self._unheard > UNHEARD:
            self._give_up(self.problem())

    def lost(self) -> dict[str, str]:
        """Return what has become of services that are lost, by name."""
        gone = {name: "has ended" for name, pid in self._pids.items() if state_of(pid) in GONE}
        stopped = [name for name, looks in self._stopped_looks.items() if looks >= PATIENCE]
        return gone | dict.fromkeys(stopped, "is stopped (SIGSTOP)")

    def problem(self) -> str:
        """Describe a service that is lost; empty if none is."""
        for name, how in self.lost().items():
            return (
                f"ray: the cluster's {NAMES[name]} {name} (process {self._pids[name]}) {how}, and without it no "
                "process can be started or found; a run of its own cluster ends with it"
            )
        return ""

    def end_stopped(self) -> None:
        """End the services that stay stopped, so that what is asked of one fails, in place of waiting for ever."""
        for name, looks in self._stopped_looks.items():
            if looks >= PATIENCE:
                with suppress(ProcessLookupError):
                    os.kill(self._pids[name], signal.SIGKILL)


def _main_thread_waits() -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and frame.f_code.co_filename.startswith(os.path.dirname(ray.__file__) + os.sep)


def _end_process(folders: Sequence[Path], why: str) -> None:
    """Say why, and end: nothing that the main thread has to do before its end could be done without the service.

    Args:
        folders: of the cluster, if it is this process's own; they go too.
    """
    terminal.complain(
        f"hybridflow: {why}. Give the same command again: it goes on from its newest checkpoint, if it kept one "
        "(trainer.save_every)"
    )
    for pid in descendants(os.getpid()):  # of whom some would only notice after a minute
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for folder in folders:
        meeting_folder.remove(folder)
    os._exit(HybridFlowError.exit_code)


_watch = ServiceWatch({}, _main_thread_waits, partial(_end_process, ()))
_heads: list[HeadWatch] = []  # of the cluster that was joined


@contextmanager
def watched(folders: Sequence[Path] = ()) -> Iterator[None]:
    """Look after the services of the cluster in the block.

    Args:
        folders: of it, that this process has made.

    Raises ClusterError for whatever else is raised because one was lost.
    """
    global _watch
    before = _watch
    watch = _watch = ServiceWatch(pids(), _main_thread_waits, partial(_end_process, folders))
    threading.Thread(target=watch.run, name="services of the cluster", daemon=True).start()
    try:
        yield
    except Exception as error:
        if not isinstance(error, HybridFlowError):
            _raise_if_lost(error)
        raise
    finally:
        watch.stop()
        _watch = before  # else they would be lost, once their cluster has been left


@contextmanager
def head_watched(address: str) -> Iterator[None]:
    """Look after the head of a cluster that is joined in the block: its services are those of whoever started it."""
    head = HeadWatch(address, partial(_end_process, ()))
    _heads.append(head)
    try:
        yield
    finally:
        _heads.remove(head)
        head.close()


def pids() -> dict[str, int]:
    """Return their processes by name; none of a cluster that was joined: they are whoever's who started it."""
    node = ray._private.worker._global_node
    if node is None or not node.head:
        return {}
    return {name: node.all_processes[name][0].process.pid for name in NAMES if node.all_processes.get(name)}


def lost() -> list[str]:
    """Return the names of the services that are lost, or do not answer now: whoever asks one would wait."""
    return [*_watch.lost(), *("head" for head in _heads if not head.answers())]


def raise_if_lost() -> None:
    """Raise ClusterError if a service is not there any more, or has not answered for as long as it may."""
    _raise_if_lost(None)


def _raise_if_lost(cause: Exception | None) -> None:
    if lost := _watch.problem():
        _watch.end_stopped()  # to leave the cluster would wait for them
        raise ClusterError(lost) from cause
    for head in _heads:
        if lost := head.problem():
            raise ClusterError(lost) from cause
