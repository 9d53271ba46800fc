"""The Ray actor: one process of a pool, and the roles whose workers it runs.

Torch, and what needs it, is imported only when a role is built that is not light.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import ray

from hybridflow import interrupt
from hybridflow.batch import Batch, Metadata, Plain
from hybridflow.config.schema import Config, Device
from hybridflow.dispatch import Call, Method, methods, with_columns
from hybridflow.dispatch.column_checks import check_given, check_returned, check_streamed
from hybridflow.dispatch.message import unpack
from hybridflow.observe import logs
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.layout import describe as describe_layout
from hybridflow.parallel.waiting import waiting
from hybridflow.placement import Engines, settings_of_worker
from hybridflow.registry import import_plugins
from hybridflow.roles import Role, is_second_policy, roles
from hybridflow.runtime import meeting_folder, process_state
from hybridflow.runtime.failure import Failure, describe, is_of_link, kind_of
from hybridflow.runtime.messages import CallRequest, NodeView, Place, Report
from hybridflow.runtime.torch_trace import TorchTrace
from hybridflow.tasks.grades import gives_grades, settled

if TYPE_CHECKING:
    from hybridflow.workers import Context

log = logging.getLogger(__name__)


class Rank:
    """Host of every role of a pool, in one of its processes. Methods that report give the bytes of a `Report`."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._workers: dict[str, Any] = {}
        self._contexts: dict[str, Context] = {}
        self._declared: dict[str, dict[str, Method]] = {}
        self._streamed = Report()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trace = TorchTrace()
        self._node = ray.util.get_node_ip_address()

    def start(self, pool: str) -> bytes:
        """Report a `Place`: from then on this process is watched."""

        def place() -> Place:
            logs.show()  # in the log that Ray keeps of this process
            logs.remember()
            log.info("process %d is rank %d of pool %s", os.getpid(), self._rank, pool.rpartition(".")[2])
            interrupt.leave_to_driver()
            own = process_state.offer_stacks()
            return Place(ray.get_runtime_context().get_node_id(), self._node, os.getpid(), own)

        return self._reported(pool, "start", place)

    def import_plugins(self, pool: str, plugins: list[str]) -> bytes:
        """Import the user's modules, and report."""
        return self._reported(pool, "import_plugins", lambda: import_plugins(plugins))

    def import_torch(self, pool: str) -> bytes:
        """Import torch, and report: pools do so side by side, before the ranks of any of them meet."""

        def import_it() -> None:
            with logs.timed(log, "import of torch"), without_collections():
                import torch.distributed  # noqa: F401

        return self._reported(pool, "import_torch", import_it)

    def write_log(self, pool: str, prefix: str) -> bytes:
        """Write this process's log to a file whose name begins so, and report. Without a disk for it there is none."""

        def write() -> None:
            try:
                logs.write_to(Path(f"{prefix}{self._rank}.log"))
            except OSError as error:  # of a machine that does not have the run's disk
                log.warning("no log file on this machine: %s", error)

        return self._reported(pool, "write_log", write)

    def view_files(self, pool: str, speakers: Sequence[int], folders: Sequence[str], mark: str) -> bytes:
        """Report a `NodeView` of these folders and of the file `mark`, if this rank is to speak for its node."""

        def view() -> NodeView | None:
            from hybridflow.models.folder_digest import file_digests

            if self._rank not in speakers:
                return None
            try:
                text = Path(mark).read_text(encoding="utf-8", errors="replace")
            except OSError:
                text = ""
            writes = os.access(Path(mark).parent, os.W_OK | os.X_OK)
            return NodeView({folder: file_digests(folder) for folder in folders}, text, writes)

        return self._reported(pool, "view_files", view)

    def make_meeting_folder(self, pool: str) -> bytes:
        """Make a folder on this node, which is swept away once this process is gone; report its path."""
        return self._reported(pool, "make_meeting_folder", lambda: str(meeting_folder.make()))

    def free_port(self, pool: str) -> bytes:
        """Report a port of this node, where from now on a store waits for those who are to meet."""

        def free() -> int:
            from hybridflow.parallel.rendezvous import serve

            return serve(self._node)

        return self._reported(pool, "free_port", free)

    def join(self, pool: str, world: int, local_rank: int, init_method: str, timeout_s: float, device: Device) -> bytes:
        """Enter the pool's torch.distributed world, and report the name of the device."""
        os.environ.update(
            RANK=str(self._rank), WORLD_SIZE=str(world), LOCAL_RANK=str(local_rank), LOCAL_WORLD_SIZE=str(world)
        )

        def enter() -> str:
            from datetime import timedelta

            import torch.distributed as dist

            from hybridflow.parallel.host_address import be_reachable
            from hybridflow.parallel.platform import choose_platform, platform
            from hybridflow.parallel.rendezvous import meet

            be_reachable(self._node)
            choose_platform(device)
            platform().start(local_rank)
            timeout = timedelta(seconds=timeout_s)
            store = meet(init_method, self._rank, world, timeout)
            dist.init_process_group(platform().backend, store=store, rank=self._rank, world_size=world, timeout=timeout)
            return platform().device_name

        return self._reported(pool, "join", enter)

    def build(self, role: str, worker: str, layout: Layout, config: Config, updates: int, engines: Engines) -> bytes:
        """Make the worker of a role, and report."""

        def make() -> None:
            from hybridflow.workers import Context

            begun = perf_counter()
            seen = settings_of_worker(config, role)
            context = Context(seen, layout, self._rank, role, updates, engines, peers=self._workers)
            with without_collections():
                self._workers[role] = _worker(worker)(context)
            self._contexts[role] = context
            own = type(self._workers[role])
            more = (own.more_columns(config), own.more_read(config)) if issubclass(own, Role) else ({},)
            self._declared[role] = with_columns(methods(own), *more)
            where = describe_layout(layout)
            log.info("%s: built on rank %d of %s in %.2f s", role, self._rank, where, perf_counter() - begun)
            gc.collect()
            gc.freeze()  # what is here now stays for the run: the collector need not look through it during calls

        return self._reported(role, "build", make)

    def start_trace(self, pool: str) -> bytes:
        """Record what torch computes in this process from now on, and report."""
        return self._reported(pool, "start_trace", self._trace.start)

    def write_trace(self, pool: str, prefix: str) -> bytes:
        """Write what was recorded to a file whose name begins so; report the DiskError if it finds no room.

        Args:
            prefix: empty: nothing is written.
        """

        def write() -> DiskError | None:
            try:
                if prefix:
                    self._trace.write(Path(f"{prefix}{self._rank}.json.gz"))
                else:
                    self._trace.drop()
            except DiskError as error:  # given, not raised: nothing is wrong with this rank
                return error
            return None

        return self._reported(pool, "write_trace", write)

    def call(self, encoded: bytes, *chunks: Plain | Failure) -> bytes:
        """Carry out a call that gives no rows, and report."""
        request = CallRequest.decode(encoded)
        return self._encoded(request, self._carry_out(request, chunks)[0])

    @ray.method(num_returns=2)
    def call_rows(self, encoded: bytes, *chunks: Plain | Failure) -> tuple[Any, ...]:
        """Carry out a call that gives rows; report, and give the rows in chunks, or the failure in their place."""
        request = CallRequest.decode(encoded)
        report, columns = self._carry_out(request, chunks)
        return self._encoded(request, report), *columns

    @ray.method(num_returns="streaming")
    def stream_rows(self, encoded: bytes, *chunks: Plain | Failure) -> Iterator[Any]:
        """Carry out a call that gives rows as they finish.

        Yields a report on some of them, whose value is their numbers, then these rows, and so on.
        """
        self._streamed = yield from self._stream(CallRequest.decode(encoded), chunks)

    def streamed(self) -> bytes:
        """Report on the call of `stream_rows` before this one."""
        return self._streamed.encode()

    def _stream(self, request: CallRequest, chunks: Sequence[Plain | Failure]) -> Generator[Any, None, Report]:
        if failure := self._upstream(request, chunks):
            return Report(failure=failure)
        began = time()
        start = perf_counter()
        waiting.take()
        try:
            declared = self._declared[request.role][request.method]
            call, pieces = self._called(request, declared, chunks)
            settling = ((rows, self._settled(request.role, part, call, rows)) for rows, part in pieces)
            with self._trace.call(f"{request.role}.{request.method}"):
                for rows, part in check_streamed(declared, settling, call):
                    yield Report((Metadata.of(part),), value=rows).encode()
                    yield part.to_wire()
        except BaseException as error:
            return Report(failure=self._failure(request.role, request.method, error))
        seconds = perf_counter() - start
        return Report(metrics=self._recorded(request.role), seconds=seconds, began=began, waited=waiting.take())

    def _upstream(self, request: CallRequest, chunks: Sequence[Plain | Failure]) -> Failure | None:
        """Return the failure because of which rows of a call were not made."""
        for chunk in chunks:
            if isinstance(chunk, Failure):
                return dataclasses.replace(
                    chunk, role=request.role, rank=self._rank, node=self._node, method=request.method, error=str(chunk),
                    follows=True,
                )  # fmt: skip
        return None

    def _called(self, request: CallRequest, declared: Method, chunks: Sequence[Plain | Failure]) -> tuple[Call, Any]:
        """Return the call with its rows, and what the method gave for it."""
        call = unpack(request.message, chunks)  # type: ignore[arg-type]
        check_given(declared.of_call(*call), call)
        self._contexts[request.role].drawn.clear()
        return call, getattr(self._workers[request.role], request.method)(*call.args, **call.kwargs)

    def _carry_out(
        self, request: CallRequest, chunks: Sequence[Plain | Failure]
    ) -> tuple[Report, Sequence[Plain | Failure]]:
        if failure := self._upstream(request, chunks):
            return Report(failure=failure), [failure] * request.chunks
        try:
            return self._done(request, chunks)
        except BaseException as error:  # also SystemExit, and torch's CheckpointException: this process must report it
            failure = self._failure(request.role, request.method, error)
            return Report(failure=failure), [failure] * request.chunks

    def _done(self, request: CallRequest, chunks: Sequence[Plain | Failure]) -> tuple[Report, Sequence[Plain]]:
        """Return the report on a call, and what it gave. Raises whatever the method raises."""
        began = time()
        start = perf_counter()
        waiting.take()
        declared = self._declared[request.role][request.method]
        with self._trace.call(f"{request.role}.{request.method}"):
            call, value = self._called(request, declared, chunks)
            if not isinstance(value, Batch) and inspect.isawaitable(value):
                value = self._wait_for(value)
            value = self._settled(request.role, value, call)
        check_returned(declared, value, call)
        seconds = perf_counter() - start
        times: dict[str, Any] = {"seconds": seconds, "began": began, "waited": waiting.take()}
        metrics = self._recorded(request.role)
        log.debug("%s.%s: %.3f s", request.role, request.method, seconds)
        if not declared.returns_rows:
            return Report(value=value, metrics=metrics, **times), []
        parts = [value] if request.chunks == 1 else value.split(request.chunks)
        known = tuple(map(Metadata.of, parts))
        return Report(known, metrics=metrics, **times), [part.to_wire() for part in parts]

    def _settled(self, role: str, value: Any, call: Call, rows: Any = None) -> Any:
        """Check the grades in what a call gave.

        Args:
            rows: which of the rows that were given it is of, by number; None: of all.
        """
        if not gives_grades(value):  # nearly all calls: the rows that were given are not even looked up
            return value
        context = self._contexts[role]
        of = next((part for part in (*call.args, *call.kwargs.values()) if isinstance(part, Batch)), None)
        return settled(value, of if of is None or rows is None else of.select(rows), context.config, context.metrics)

    def _reported(self, role: str, method: str, make: Callable[[], Any]) -> bytes:
        """Report on something that is no method of a role."""
        try:
            return Report(value=make()).encode()
        except BaseException as error:
            return Report(failure=self._failure(role, method, error)).encode()

    def _encoded(self, request: CallRequest, report: Report) -> bytes:
        """Encode a report as it travels; on a value that cannot travel, the report of that."""
        try:
            return report.encode()
        except BaseException as error:
            return Report(failure=self._failure(request.role, request.method, error)).encode()

    def _recorded(self, role: str) -> Metrics | None:
        """Return the metrics of the call that has been carried out, if there are any."""
        context = self._contexts[role]
        metrics = context.metrics
        if not metrics:
            return None
        context.metrics = Metrics()
        return metrics.renamed("actor/", f"{role}/") if is_second_policy(role) else metrics

    def _wait_for(self, coroutine: Any) -> Any:
        """Finish an `async` method. One loop serves all, so that what a worker keeps between calls stays usable."""
        self._loop = self._loop or asyncio.new_event_loop()
        return self._loop.run_until_complete(coroutine)

    def _failure(self, role: str, method: str, error: BaseException) -> Failure:
        line, trace = describe(error)
        log.info("%s.%s failed: %s\n%s", role, method, line, trace)
        kind = kind_of(error)
        return Failure(role, self._rank, self._node, method, line, trace, kind=kind, of_link=is_of_link(error))


@contextmanager
def without_collections() -> Iterator[None]:
    """Let Python's garbage collector rest while engines are imported and built.

    They leave hardly any, and it would look through their thousands of modules again and again: a sixth of the time.
    """
    rests = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not rests:
            gc.enable()


def _worker(name: str) -> Any:
    """Return the class of a role's worker: the role's own if it is a worker too, else the worker of that name.

    In this order, since to look a name up among the workers may import our own, and with them torch.
    """
    from hybridflow.workers import Worker, workers

    own = roles.get(name) if name in roles else None
    return own if own is not None and issubclass(own, Worker) else workers.get(name)
