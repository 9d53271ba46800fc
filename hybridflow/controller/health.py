"""Health of the ranks: who is stopped or gone, which call takes too long, and what is said of it before anything is
done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from hybridflow.controller import ray_services
from hybridflow.controller.away_node import SAY_LOOKS, SILENT_LOOKS
from hybridflow.controller.call_record import NO_PLACE, CallRecord, late, named
from hybridflow.controller.deadlines import Deadlines, OldestCallClock
from hybridflow.controller.process_deaths import ending
from hybridflow.controller.process_watch import LOST_NODE, PING_EVERY_S, STOPPED_LOOKS, ProcessWatch
from hybridflow.runtime.failure import Failure, FailureKind
from hybridflow.runtime.messages import Place
from hybridflow.runtime.process_state import innermost

log = logging.getLogger(__name__)

MAX_STACKS = 8  # ranks of a hung call whose stacks are taken; the others wait for them


@dataclass
class Health:
    """Everything that the supervisor knows of ranks that do not report.

    Attributes:
        deadlines: of calls.
        folder: that stacks of hung ranks go into; None: there is no run folder.
    """

    deadlines: Deadlines = field(default_factory=Deadlines)
    folder: Path | None = None
    _watches: list[tuple[Any, ProcessWatch]] = field(default_factory=list)
    _clock: OldestCallClock = field(default_factory=OldestCallClock)
    _looked_at: float = 0.0
    _well_at: float = field(default_factory=monotonic)

    def watch(self, pool: Any, watch: ProcessWatch) -> None:
        """Look after a pool's processes from now on, in place of those that it had before."""
        self.forget(pool)
        self._watches.append((pool, watch))

    def forget(self, pool: Any) -> None:
        """Look after a pool's processes no more."""
        self._watches = [entry for entry in self._watches if entry[0] is not pool]

    def watch_of(self, pool: Any) -> ProcessWatch | None:
        """Return the watch over a pool; None: it has none, as a stand-in for one."""
        return next((watch for own, watch in self._watches if own is pool), None)

    def problem(self, records: Iterable[CallRecord]) -> Failure | None:
        """Return the failure of a rank that will not report in time, if there is one; at most once a second it looks.

        Args:
            records: the calls under way, the oldest first.

        Raises ClusterError if a service of the cluster is lost.
        """
        now = monotonic()
        if now < self._looked_at + PING_EVERY_S:
            return None
        self._looked_at = now
        ray_services.raise_if_lost()
        waiting = list(dict.fromkeys(records))
        problem = self._lost_process(waiting)
        if all(watch.all_well() for _, watch in self._watches):
            self._well_at = now
        return problem or (self._too_late(waiting[0], now) if waiting else None)

    def unseen_s(self) -> float:
        """Return the seconds since every process was last seen to be well, and no call waited for too long."""
        return monotonic() - self._well_at

    def lost_pools(self) -> list[Any]:
        """Return the pools with a process that is stopped or gone."""
        return [pool for pool, watch in self._watches if watch.now_lost()]

    def end(self, pool: Any) -> None:
        """End a pool's processes, also those that are stopped, and look after them no more."""
        watch = self.watch_of(pool)
        if watch is not None:
            for rank in range(len(watch.places)):
                watch.kill(rank)
            self.forget(pool)

    def note(self, record: CallRecord) -> None:
        """Take note of a call that has been done, so that the next of its name is not spoken of too soon."""
        seconds = max([report.seconds for report in record.reports if report is not None], default=0.0)
        self._clock.note(f"{record.role}.{record.method}", seconds)

    def blamed(self, noticed: Failure, records: Iterable[CallRecord]) -> list[Failure]:
        """Return what a failure between ranks really comes from: ranks that are stopped, or never came to meet."""
        waiting = list(dict.fromkeys(records))
        lost = [
            self._failure(pool, watch, rank, state, waiting)
            for pool, watch in self._watches
            for rank, state in watch.now_lost().items()
        ]
        if lost or not noticed.of_link:
            return lost
        return [failure for record in waiting for failure in self._absent(noticed, record)]

    def located(self, failure: Failure, pool: Any, rank: int) -> Failure:
        """Add to what Ray says of a process that is lost where it was, and whether its node is lost."""
        watch = self.watch_of(pool)
        if watch is None or failure.follows or failure.kind is not FailureKind.INFRA:
            return failure
        place = watch.places[rank]
        if why := watch.why_lost(rank):
            return replace(failure, node=place.address, error=lost_node(place, why))
        if failure.node == NO_PLACE:
            return replace(failure, node=place.address, error=f"its process {place.pid}: {failure.error}")
        return failure

    def stacks(self, record: CallRecord) -> dict[int, str]:
        """Take the stacks of a call's ranks that have not reported, into the run folder too."""
        watch = self.watch_of(record.pool)
        if watch is None:
            return {}
        stacks = {rank: watch.stacks(rank) for rank in record.unreported()[:MAX_STACKS]}
        for rank, text in stacks.items():
            self._keep(watch.name, rank, f"{record.role}.{record.method} on rank {rank}:\n{text}")
        return stacks

    def _lost_process(self, waiting: list[CallRecord]) -> Failure | None:
        for pool, watch in self._watches:
            watch.look()
            for rank in watch.counts.suspected():
                what = waiting_for(waiting, pool, rank)
                log.warning(
                    "%s: waiting for rank %d, whose process %d is stopped (SIGSTOP); if it stays so for %.0f s it is "
                    "given up", what or f"placement.pools.{watch.name}", rank, watch.places[rank].pid,
                    STOPPED_LOOKS * PING_EVERY_S,
                )  # fmt: skip
            for rank in watch.silent():
                log.warning(
                    "placement.pools.%s: node %s, where rank %d is, has not answered for %d s; if it stays so for %d s "
                    "it is given up", watch.name, watch.places[rank].address, rank, SAY_LOOKS, SILENT_LOOKS,
                )  # fmt: skip
            for rank, state in watch.lost().items():
                return self._failure(pool, watch, rank, state, waiting)
        return None

    def _failure(
        self, pool: Any, watch: ProcessWatch, rank: int, state: str, waiting: list[CallRecord]
    ) -> Failure:  # fmt: skip
        place = watch.places[rank]
        record = next((one for one in waiting if one.pool is pool and rank in one.unreported()), None)
        role, method = (record.role, record.method) if record else (f"placement.pools.{watch.name}", "ping")
        if state == LOST_NODE:
            line = lost_node(place, watch.lost_nodes()[place.node])
        elif state == "stopped":
            line = f"its process {place.pid} is stopped (SIGSTOP), and stays so; it has no stacks to show"
        else:
            line = f"its process {place.pid} died: {ending(place.pid, '')}"
        step = record.step if record else None
        return Failure(role, rank, place.address, method, line, "", step, at=0.0, kind=FailureKind.INFRA)

    def _too_late(self, record: CallRecord, now: float) -> Failure | None:
        name = f"{record.role}.{record.method}"
        within, setting = record.within_s, record.setting
        waited = self._clock.waited(record, now)
        missing = record.unreported()
        if waited < within:
            if self._clock.time_to_say(name, waited, within):
                log.warning(
                    "%s: waiting for rank%s %s of %d since %.0f s; after %.0f s (%s) it is given up",
                    name, "s" * (len(missing) > 1), named(missing), record.size, waited, within, setting,
                )  # fmt: skip
            return None
        self._well_at = now - waited
        stacks = self.stacks(record)
        at = innermost(stacks.get(missing[0], ""))
        kept = f"; stacks are in {self.folder}" if stacks and self.folder else ""
        return late(record, within, f"; it is in {at}{kept}" if at else kept)

    def _absent(self, noticed: Failure, record: CallRecord) -> list[Failure]:
        """Return the ranks that are somewhere else than where another waited for them."""
        if (record.role, record.method) != (noticed.role, noticed.method):
            return []
        watch = self.watch_of(record.pool)
        absent = []
        for rank, stacks in self.stacks(record).items():
            if watch is None or not (at := innermost(stacks)) or "torch/distributed" in at:
                continue
            line = f"rank {noticed.rank} waited for it in vain ({noticed.error}): it is in {at}"
            address = watch.places[rank].address
            absent.append(
                Failure(record.role, rank, address, record.method, line, stacks, at=0.0, kind=FailureKind.INFRA)
            )
        return absent

    def _keep(self, pool: str, rank: int, text: str) -> None:
        if self.folder is None:
            return
        file = self.folder / f"{pool}-{rank}.stacks.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(text.rstrip() + "\n\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", file, error)


def lost_node(place: Place, why: str) -> str:
    """Describe the end of a process whose node is lost."""
    return f"its node {place.address} ({place.node[:8]}) is lost, and its process {place.pid} with it: {why}"


def waiting_for(waiting: list[CallRecord], pool: Any, rank: int) -> str:
    """Name the oldest call that a rank has not reported on; empty if there is none."""
    record = next((one for one in waiting if one.pool is pool and rank in one.unreported()), None)
    return f"{record.role}.{record.method}" if record else ""
