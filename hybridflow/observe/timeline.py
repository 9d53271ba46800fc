"""Timeline: when each rank carried out which call, as trace events that Perfetto and Chrome show.

The file is an array of the Trace Event Format: a pool is a process, a rank a thread, a call a complete event (`X`), its
times microseconds since the epoch by the clock of the rank's machine. After every write the array is closed, so whoever
reads it finds valid JSON, also while the run goes on and after it was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hybridflow.observe.disk_errors import DiskError, writing

MAX_WAITING = 4096  # spans in memory before they are written
CONTROLLER = ""  # in place of a pool, none of which has no name
CLOSE = b"\n]\n"


class CallSpan(NamedTuple):
    """Call as one rank carried it out.

    Attributes:
        role: empty: what ran is no call on a role.
        step: in which it was called; None: in none, as a validation's.
        began: in seconds since the epoch.
    """

    pool: str
    rank: int
    role: str
    method: str
    step: int | None
    began: float
    seconds: float

    @property
    def name(self) -> str:
        """Return `role.method`."""
        return f"{self.role}.{self.method}" if self.role else self.method


class Timeline:
    """Writes the calls of every n-th step: all that ran between its begin and that of the next, of whatever step.

    What comes before the first step counts as that step's. A disk that takes no more ends the timeline, not the run.

    Args:
        every: n; 0: nothing is written.
        say: is told why there is no more.
    """

    def __init__(self, path: Path, every: int, say: Callable[[str], None]) -> None:
        self._path = path
        self._every = every
        self._say = say
        self._kept_from = -inf
        self._kept_until = inf
        self._waiting: list[CallSpan] = []
        self._file: TraceFile | None = None

    def begin_step(self, step: int, at: float) -> None:
        """Take note that a step begins, at a time of the epoch."""
        kept = bool(self._every) and step % self._every == 0
        if kept and self._kept_until < inf:
            self._kept_from = at
            self._kept_until = inf
        elif not kept and self._kept_until == inf:
            self._kept_until = at

    def end_step(self, step: int, began: float, seconds: float) -> None:
        """Show a step that has ended on the controller's line, and write what waits."""
        self.note(CallSpan(CONTROLLER, 0, "", f"step {step}", step, began, seconds))
        self.write()

    def note(self, span: CallSpan) -> None:
        """Take in a call that has ended, unless it ran outside of every step that is kept."""
        if not self._every or span.began >= self._kept_until or span.began + span.seconds <= self._kept_from:
            return
        self._waiting.append(span)
        if len(self._waiting) >= MAX_WAITING:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        spans, self._waiting = self._waiting, []
        if not spans:
            return
        try:
            with writing(self._path):
                self._file = self._file or TraceFile(self._path)
                self._file.add(spans)
        except DiskError as error:
            self._every = 0
            self._say(f"warning: {error}: the timeline ends here")


class TraceFile:
    """Array of trace events in a file that grows; one that an earlier process of the run has left goes on.

    Spans of a rank never overlap: where its clock was set back as it worked, one begins where the last has ended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pools: dict[str, int] = {}
        self._last: dict[tuple[int, int], tuple[int, int]] = {}  # span of each pool's rank, in microseconds
        self._end = 0  # of the last whole event
        if path.exists():
            self._take_up()

    def add(self, spans: Iterable[CallSpan]) -> None:
        """Add spans, those that began first before others. Raises OSError, and leaves whole events."""
        events = self._names(CONTROLLER, 0)  # the first process of a file, which viewers show above the others
        events += [event for span in sorted(spans, key=lambda span: span.began) for event in self._events(span)]
        text = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events).encode()
        with self._path.open("r+b" if self._path.exists() else "w+b", buffering=0) as file:
            try:
                self._end = _write_at(file, self._end, (b",\n" if self._end else b"[\n") + text) - len(CLOSE)
            except OSError:
                with suppress(OSError):
                    _write_at(file, self._end, b"" if self._end else b"[")
                raise

    def _events(self, span: CallSpan) -> list[dict[str, Any]]:
        """Return the event of a span, after those that name its pool and its rank where these are new."""
        named = self._names(span.pool, span.rank)
        track = self._pools[span.pool], span.rank
        begin, end = self._after_last(track, span)
        at = {"ts": begin, "dur": end - begin, "pid": track[0], "tid": track[1]}
        return [*named, {"name": span.name, "cat": span.role, "ph": "X", **at, "args": {"step": span.step}}]

    def _names(self, pool: str, rank: int) -> list[dict[str, Any]]:
        """Return the events that name a pool and a rank of it; none of what has its name already."""
        named: list[dict[str, Any]] = []
        if pool not in self._pools:
            self._pools[pool] = len(self._pools) + 1  # to viewers process 0 is the kernel's, and shown otherwise
            label = "controller" if pool == CONTROLLER else f"pool {pool}"
            named.append(_named("process_name", label, pid=self._pools[pool], pool=pool))
        track = self._pools[pool], rank
        if track not in self._last:
            self._last[track] = 0, 0
            label = "steps" if pool == CONTROLLER else f"rank {rank}"
            named.append(_named("thread_name", label, pid=track[0], tid=rank))
        return named

    def _after_last(self, track: tuple[int, int], span: CallSpan) -> Sequence[int]:
        """Return when a span began and ended, without what the last one of its rank has of that time.

        It may be one that ran before the last, since reports come in any order.
        """
        begin, end = int(span.began * 1e6), int((span.began + span.seconds) * 1e6)
        first, last = self._last[track]
        if first <= begin < last:
            begin, end = last, max(last, end)
        self._last[track] = max((first, last), (begin, end))
        return begin, end

    def _take_up(self) -> None:
        """Find all names, and the end of the last whole event: a process that was killed may have left half of one."""
        place = 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    event = json.loads(line.rstrip(b",\n"))
                except ValueError:  # the brackets, and what is half
                    event = None
                if isinstance(event, dict):
                    self._end = place + len(line.rstrip(b",\n"))
                    self._take_name(event)
                place += len(line)

    def _take_name(self, event: dict[str, Any]) -> None:
        match event:
            case {"name": "process_name", "pid": int(pid), "args": {"pool": str(pool)}}:
                self._pools[pool] = pid
            case {"name": "thread_name", "pid": int(pid), "tid": int(tid)}:
                self._last[pid, tid] = 0, 0


def _write_at(file: BinaryIO, place: int, text: bytes) -> int:
    """Write from a place on, close the array, and return where that ends: it is the end of the file."""
    file.seek(place)
    rest = text + CLOSE
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate()
    return file.tell()


def _named(kind: str, label: str, *, pid: int, tid: int = 0, **more: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": label, **more}}
