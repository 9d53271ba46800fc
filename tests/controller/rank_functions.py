"""Light roles for tests of the controller; the ranks import this module as a plugin."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.batch import Batch, Ragged
from hybridflow.dispatch import Call, Protocol, Streamed, register, using
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.waiting import waiting
from hybridflow.roles import Role, roles
from hybridflow.workers import Context, Worker


@register("one_too_few")
class OneTooFew(Protocol):
    """A protocol that forgets the last rank."""

    def distribute(self, layout: Layout, call: Call) -> list[Call]:
        return [call] * (layout.size - 1)

    def collect(self, layout: Layout, outputs: Sequence[Any]) -> Any:
        return outputs


@roles.register("scribe")
class Scribe(Role, Worker):
    """Small true work on rows `n` ([R] int) and `words` (ragged int), and reports on what a rank was given."""

    light = True

    @using("dp_proto", needs=["n"], gives=["double", "by"])
    def double(self, rows: Batch) -> Batch:
        n = rows.dense("n")
        return Batch(double=n * 2, by=np.full(len(rows), self.context.rank))

    @using("3d_proto", needs=["words"], gives=["sums"])
    def sum_words(self, rows: Batch) -> Batch:
        words = rows.ragged("words")
        return Batch(sums=np.array([row.sum() for row in words], dtype=np.int64))

    @using("dp_proto", needs=["n", "words"], gives=["longer"])
    def lengthen(self, rows: Batch) -> Batch:
        """Every row's words and its n after them; ragged, and typed also where there are no rows."""
        pairs = zip(rows.ragged("words"), rows.dense("n"), strict=True)
        return Batch(longer=Ragged.of([[*words, n] for words, n in pairs], np.int64))

    @using("dp_proto")
    def columns(self, rows: Batch) -> Any:
        return sorted(rows.columns)

    @using("dp_proto", needs=["n"], optional=["double"])
    def columns_needed(self, rows: Batch) -> Any:
        return sorted(rows.columns)

    @using("dp_proto")
    def undeclared(self, rows: Batch) -> Batch:
        """Its columns are learned from the ranks."""
        return Batch(found=rows.dense("n") + 1)

    @using("dp_proto", needs=["n"])
    def odd(self, rows: Batch) -> Batch:
        """Fewer rows than it was given, and columns that are learned from the ranks."""
        n = rows.dense("n")
        return Batch(odd=n[n % 2 == 1])

    @using("dp_tokens", needs=["response_ids"], gives=["by", "tokens"])
    def weigh(self, rows: Batch) -> Batch:
        """Beside every row the rank, and the tokens of all rows that this rank was given."""
        tokens = rows.lengths("response_ids").sum()
        return Batch(by=np.full(len(rows), self.context.rank), tokens=np.full(len(rows), tokens))

    @using("3d_proto", needs=["n"], gives=["response_ids"])
    def respond(self, rows: Batch) -> Batch:
        """n tokens for each n, after a while."""
        time.sleep(0.3)
        return Batch(response_ids=Ragged.of([[0] * n for n in rows.dense("n")], np.int64))

    @using("metrics", needs=["n"])
    def reduce(self, rows: Batch) -> Metrics:
        n, metrics = rows.dense("n"), Metrics()
        metrics.mean("n/mean", n.sum(), len(n))
        metrics.total("n/total", n.sum())
        metrics.max("n/max", n.max(initial=0))
        return metrics

    @using("dp_proto", needs=["n"], gives=["double"])
    async def double_async(self, rows: Batch) -> Batch:
        """Every row at once: all of them sleep together."""

        async def one(n: int) -> int:
            await asyncio.sleep(0.3)
            return 2 * n

        return Batch(double=np.array(await asyncio.gather(*map(one, rows.dense("n").tolist())), dtype=np.int64))

    @using("rank_zero")
    def who(self, *names: str) -> str:
        return f"{self.context.rank}: {' '.join(names)}"

    @using("one_to_all")
    def ping(self) -> None:
        """Nothing: what is left is the cost of a call."""

    @using("one_to_all")
    def pid(self) -> Any:
        return os.getpid()

    @using("one_to_all", blocking=True)
    def nap(self, *, seconds: float) -> None:
        time.sleep(seconds)

    @using("one_to_all")
    def loaded(self, module: str) -> Any:
        return module in sys.modules

    @using("one_to_all")
    def leak(self, rows: Batch) -> Any:
        """Rows inside a value: what a role must not do."""
        return {"rows": rows}

    @using("3d_proto", needs=["n"], gives=["double"], streams=True)
    def double_one_by_one(self, rows: Batch, *, wait_for: str = "") -> Streamed[Batch]:
        """The last row first. Before the first row of the call, n = 0, it waits until a file is there."""
        n = rows.dense("n")
        for row in range(len(rows))[::-1]:
            while n[row] == 0 and wait_for and not os.path.exists(wait_for):
                time.sleep(0.01)
            yield np.array([row]), Batch(double=2 * n[[row]])
        self.context.metrics.total("rows/total", len(rows))

    @using("dp_proto", needs=["n"], gives=["double"])
    def meet(self, rows: Batch) -> Batch:
        """Every rank waits, but for the last one, which the others wait for."""
        with waiting.meeting() if self.context.rank < self.context.layout.size - 1 else nullcontext():
            time.sleep(0.3)
        return Batch(double=2 * rows.dense("n"))

    @using("dp_proto", needs=["n"], gives=["double"], streams=True)
    def meet_one_by_one(self, rows: Batch) -> Streamed[Batch]:
        """Meet before the rows, and give each by itself."""
        met = self.meet(rows)
        for row in range(len(rows)):
            yield np.array([row]), met.select(np.array([row]))

    @using("3d_all_micro_dp", needs=["n"], gives=["drawn_from", "before"], samples=True)
    def draw(self, rows: Batch) -> Batch:
        """The random streams of the rows, and how often this call had drawn from any of them before."""
        streams, drawn = rows.dense("stream_id"), self.context.drawn
        before = drawn.total()
        drawn.update(streams.tolist())
        return Batch(drawn_from=streams, before=np.full(len(rows), before))

    @using("3d_all_micro_dp", needs=["n"], gives=["drawn_from"], streams=True, samples=True)
    def draw_one_by_one(self, rows: Batch) -> Streamed[Batch]:
        for row in range(len(rows))[::-1]:
            yield np.array([row]), Batch(drawn_from=rows.dense("stream_id")[[row]])

    @using("dp_proto", needs=["n"])
    def measure(self, rows: Batch) -> None:
        n, metrics = rows.dense("n"), self.context.metrics
        metrics.mean("n/mean", n.sum(), len(n))
        metrics.total("n/total", n.sum())
        metrics.max("n/max", n.max(initial=0))

    @using("3d_proto", needs=["n"])
    def measure_once_a_replica(self, rows: Batch) -> None:
        self.context.metrics.total("replicas/total", rows.dense("n").sum())

    @using("one_to_all")
    def measure_everywhere(self) -> None:
        self.context.metrics.total("ranks/total", 1)

    @using("3d_proto", needs=["n"])
    def measure_ranks(self, rows: Batch) -> None:
        """Only rank 0 is where results come from; the others have numbers of their own."""
        metrics, rank = self.context.metrics, self.context.rank
        metrics.max("rank/largest", rank)
        metrics.min("rank/smallest", -rank)
        metrics.spread("n/", rows.dense("n"))
        metrics.max("timing_s/part", 1 + rank)

    @using("one_too_few")
    def forget_one(self) -> None:
        raise AssertionError("no rank is called")

    @using("dp_proto", needs=["n"], gives=["waited"])
    def patient(self, rows: Batch, *, file: str) -> Batch:
        """Once there is such a file."""
        while not Path(file).exists():
            time.sleep(0.01)
        return Batch(waited=np.ones(len(rows)))

    @using("dp_proto", needs=["n"], gives=["started", "ended"])
    def slow(self, rows: Batch, *, seconds: float) -> Batch:
        """When this rank began and ended, beside every row."""
        started = time.time()
        time.sleep(seconds)
        return Batch(started=np.full(len(rows), started), ended=np.full(len(rows), time.time()))


class UnspeakableError(Exception):
    """It cannot be printed, and not be pickled either."""

    def __init__(self) -> None:
        super().__init__(socket.socket())

    def __str__(self) -> str:
        raise ValueError("no text")


class OfRanks(BaseException):
    """As torch's CheckpointException: by rank, an exception and its stack, and a text of many lines."""

    def __init__(self, failures: dict[int, tuple[BaseException, Any]]) -> None:
        super().__init__("OfRanks\n" * 98)
        self.failures = failures


def odd_errors() -> dict[str, BaseException]:
    """Exceptions of all kinds, by a word for them."""
    full = OSError(errno.ENOSPC, "No space left on device", "/full/file")
    wrapped = RuntimeError("unexpected pos 64 vs 0")
    wrapped.__context__ = full
    return {
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "generator": GeneratorExit("early"),
        "unspeakable": UnspeakableError(),
        "huge": RuntimeError("h" * 10_000_000),
        "lines": RuntimeError("first\n\n  second\n"),
        "group": ExceptionGroup("several", [ExceptionGroup("inner", [KeyError("a")]), ValueError("b")]),
        "of ranks": OfRanks({1: (full, None)}),
        "wrapped": OfRanks({0: (wrapped, None)}),
        "empty": OfRanks({}),
    }


@roles.register("vandal")
class Vandal(Role, Worker):
    """Breaks in the way that it is told."""

    light = True

    @using("dp_proto", needs=["n"], gives=["good"])
    def wrong_rows(self, rows: Batch) -> Batch:
        return Batch(good=rows.dense("n")[1:])

    @using("dp_proto", needs={"n": "int"}, gives={"good": "float"})
    def wrong_kind(self, rows: Batch) -> Batch:
        return Batch(good=rows.dense("n"))

    @using("dp_proto", needs=["n"], gives=["good"], streams=True)
    def stream_wrongly(self, rows: Batch, *, how: str) -> Streamed[Batch]:
        """Good rows first, then something else on rank 0."""
        n = rows.dense("n")
        yield np.arange(len(rows) - 1), Batch(good=n[:-1])
        if self.context.rank == 0 and how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.context.rank == 0 and how == "raises":
            raise ZeroDivisionError("the last row is broken")
        if self.context.rank or how != "forgets":
            yield np.array([0 if how == "repeats" else len(rows) - 1]), Batch(good=n[-1:])

    @using("dp_proto", needs=["n"], gives=["good"])
    def fail_in_turn(self, rows: Batch, *, first: int, wait_s: float = 0.2) -> Batch:
        """One rank finds a broken row, the others then find it gone."""
        if self.context.rank == first:
            raise ZeroDivisionError(f"row {rows.dense('n')[0]} is broken")
        time.sleep(wait_s)
        raise ConnectionError("connection closed by peer")

    @using("one_to_all")
    def throw(self, *, what: str) -> Any:
        """Something that is hard to report, on every rank."""
        if what == "gives a socket":
            return socket.socket()
        raise odd_errors()[what]

    @using("one_to_all")
    def die(self, *, rank: int, peers_raise: bool, how: str = "SIGKILL") -> None:
        """The process of one rank ends; the others wait for it, or notice at once."""
        if self.context.rank == rank and how.isdecimal():
            os._exit(int(how))
        if self.context.rank == rank:
            os.kill(os.getpid(), getattr(signal, how))
        if peers_raise:
            raise ConnectionError("connection closed by peer")
        time.sleep(60)

    @using("one_to_all")
    def miss_a_meeting(self, *, rank: int, how: str) -> None:
        """One rank is stopped, or asleep; the others wait for it as gloo does, in vain."""
        if self.context.rank == rank and how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.context.rank == rank:
            time.sleep(60)
        time.sleep(0.3)
        raise RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 300ms for recv operation")


@roles.register("stillborn")
class Stillborn(Role, Worker):
    """Cannot be built on rank 1."""

    light = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if context.rank == 1:
            raise FileNotFoundError("no such model: nowhere")
