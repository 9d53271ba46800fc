"""Group: a role as the algorithm sees it. Its methods are the role's; rows go in and come out by reference."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from hybridflow.batch import Batch, BatchRef
from hybridflow.config.schema import Config
from hybridflow.controller.call_record import CallRecord
from hybridflow.controller.failure_policy import RankSource
from hybridflow.controller.object_store import put
from hybridflow.controller.pending_call import CallSender
from hybridflow.controller.streamed_rows import StreamedCall, StreamedRows
from hybridflow.controller.supervisor import Supervisor
from hybridflow.dispatch import Call, Method, Protocol, Result, methods, protocols, with_columns
from hybridflow.dispatch.annotations import by_reference
from hybridflow.dispatch.random_streams import STREAM, with_streams
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.roles import Role, givers
from hybridflow.runtime.messages import Report


class PendingResult(Result):
    """Result of a call that gives no rows."""

    def __init__(self, supervisor: Supervisor, record: CallRecord) -> None:
        self._supervisor = supervisor
        self._record = record

    def get(self) -> Any:
        self._supervisor.wait(self._record)
        return self._record.joined(lambda report: report.value)

    def metadata(self) -> list[Report]:
        return [report for report in self._supervisor.wait(self._record) if report is not None]


class Group:
    """Ranks of one role.

    A call returns at once: a `BatchRef` if the method gives rows, an iterator of them if it streams, a `Result` if it
    gives none. Calls on one rank run in the order in which they were made; calls on other pools start when their rows
    are there.
    """

    def __init__(
        self,
        role: str,
        interface: type[Role],
        layout: Layout,
        pool: RankSource,
        supervisor: Supervisor,
        chunk_rows: int | None = None,
    ) -> None:
        self.role = role
        self.interface = interface
        self.layout = layout
        self._supervisor = supervisor
        self._send = CallSender(role, pool, supervisor, chunk_rows)

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(methods(self.interface)) if "interface" in self.__dict__ else ""
        raise AttributeError(f"role {self.__dict__.get('role')!r} has no method {name!r}; it has {known}")

    def number_streams(self, rows: BatchRef) -> BatchRef:
        """Return rows with the random streams that the next call would give them, and count it as made.

        So several calls may sample a part of them each, and all is as if one had sampled them.
        """
        call = with_streams(Call((_stored(rows),)), self._supervisor.step, self._supervisor.count_sampling())
        numbered: BatchRef = call.args[0]
        return numbered.for_call()

    def _make(self, name: str, method: Method, protocol: Protocol, call: Call) -> Any:
        method = method.of_call(*call)
        call = call.map(_stored)
        if method.samples and not _has_streams(call):
            call = with_streams(call, self._supervisor.step, self._supervisor.count_sampling())
        call = call.map(_fresh)
        self._check_columns(name, method, call)
        parts = protocol.distribute(self.layout, call)
        if len(parts) != self.layout.size:
            raise HybridFlowError(
                f"{self.role}.{name}: distribute of protocol {method.protocol!r} gave {len(parts)} calls "
                f"for {self.layout.size} ranks; it must give one a rank, or None for a rank that is not called"
            )
        if method.streams and any(part is not None and part.rows() is None for part in parts):
            raise HybridFlowError(f"{self.role}.{name} gives rows as they finish; it must be called with rows")
        collect = functools.partial(protocol.collect, self.layout)
        sent = self._send(name, method, parts, collect)
        if method.blocking:
            self._supervisor.wait(sent.record)
        if method.streams:
            return StreamedRows([StreamedCall(sent, collect, method.gives or ())])
        if not method.returns_rows:
            return PendingResult(self._supervisor, sent.record)
        if method.gives is not None and all([sent.rows[rank] is not None for rank in sent.record.ranks]):
            return _without_origin(collect(sent.lazy_outputs(method.gives)))
        return BatchRef.deferred(lambda: _without_origin(collect(sent.results())))

    def _check_columns(self, name: str, method: Method, call: Call) -> None:
        rows = call.rows()
        if method.needs is None or rows is None:
            return
        passed = rows.columns
        lacking = [column for column in method.needs if column not in passed]
        if lacking:
            missing = "; ".join(
                f"{column!r} is given by {', '.join(givers(column)) or 'no role that is known'}" for column in lacking
            )
            raise HybridFlowError(f"{self.role}.{name} wants columns that its rows do not have: {missing}")


def group_class(interface: type[Role], config: Config | None = None) -> type[Group]:
    """Make a class of groups with a role's methods, signatures and docstrings. Raises KeyError as `methods`.

    Args:
        config: under which some methods may give more columns.
    """
    more = (interface.more_columns(config), interface.more_read(config)) if config else ({},)
    declared = with_columns(methods(interface), *more).items()
    made = {
        name: _bound(name, method, protocols.get(method.protocol)(), getattr(interface, name))
        for name, method in declared
    }
    return type(f"{interface.__name__}Group", (Group,), {"__doc__": interface.__doc__, **made})


def _bound(name: str, method: Method, protocol: Protocol, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Group, *args: Any, **kwargs: Any) -> Any:
        return self._make(name, method, protocol, Call(args, kwargs))

    returned = "Streamed" if method.streams else "BatchRef" if method.returns_rows else "Result"
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=by_reference(function, p)) for p in signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return call


def _stored(value: Any) -> Any:
    """Pass an argument by reference: rows that are here go to the store."""
    return put(value) if isinstance(value, Batch) else value


def _has_streams(call: Call) -> bool:
    """Tell whether rows were numbered for this call (`Group.number_streams`): a mark, which no column of theirs is."""
    rows = call.rows()
    return rows is not None and STREAM in rows.driver_columns


def _fresh(value: Any) -> Any:
    """Return an argument as a protocol gets it: rows of a former call have no number."""
    return value.for_call() if isinstance(value, BatchRef) else value


def _without_origin(result: Any) -> Any:
    if isinstance(result, BatchRef):
        return result.with_origin(None)
    return [_without_origin(value) for value in result] if isinstance(result, Sequence) else result
