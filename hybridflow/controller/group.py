"""Group: a role as the algorithm sees it. Its methods are the role's; rows go in and come out by reference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hybridflow.batch import BatchRef
from hybridflow.controller import store
from hybridflow.controller.supervise import CallRecord, Supervisor
from hybridflow.dispatch import Call, Method, methods, protocols
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.roles import Role, roles


class Result:
    """The result of a call that gives no rows; it may still be under way."""

    def __init__(self, supervisor: Supervisor, record: CallRecord) -> None:
        self._supervisor, self._record = supervisor, record

    def get(self) -> Any:
        """Wait for the ranks; what the protocol collects of their values. Raises RoleError if a call failed."""
        reports = self._supervisor.wait(self._record)
        return self._record.collect([report.value for report in reports])


class Group:
    """The ranks that play one role.

    A call returns at once: a `BatchRef` if the method gives rows, a `Result` if not. Calls on one rank run in the
    order in which they were made; calls on other pools start when their rows are there.
    """

    def __init__(
        self, role: str, interface: type[Role], layout: Layout, ranks: list[Any], supervisor: Supervisor
    ) -> None:
        self.role, self.layout = role, layout
        self._interface, self._ranks, self._supervisor = interface, ranks, supervisor
        for name, method in methods(interface).items():
            setattr(self, name, self._bound(name, method))

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(methods(self._interface)) if "_interface" in self.__dict__ else ""
        raise AttributeError(f"role {self.__dict__.get('role')!r} has no method {name!r}; it has {known}")

    def _bound(self, name: str, method: Method) -> Callable[..., Any]:
        function = getattr(self._interface, name)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, method, Call(args, kwargs))

        return call

    def _call(self, name: str, method: Method, call: Call) -> Any:
        self._check_columns(name, method, call)
        protocol = protocols.get(method.protocol)()
        parts = protocol.distribute(self.layout, call)
        if len(parts) != self.layout.size:
            raise HybridFlowError(
                f"{self.role}.{name}: distribute of protocol {method.protocol!r} gave {len(parts)} calls "
                f"for {self.layout.size} ranks; it must give one a rank, without rows to a rank that gets none"
            )
        reports, rows = [], []
        for rank, part in enumerate(parts):
            message, objects = store.pack(part, method.reads, call)
            report, data = (
                self._ranks[rank].call.options(num_returns=2).remote(self.role, name, rank, message, *objects)
            )
            reports.append(report)
            rows.append((data, part.rows()))
        record = CallRecord(self.role, name, reports, functools.partial(protocol.collect, self.layout))
        self._supervisor.watch(record)
        if not method.returns_rows:
            return Result(self._supervisor, record)
        return protocol.collect(self.layout, self._references(method, record, rows))

    def _references(self, method: Method, record: CallRecord, rows: list[tuple[Any, Any]]) -> list[BatchRef]:
        """What each rank gives: as many rows as it was given if the columns are declared, else as it reports."""
        if method.gives is not None and all(given is not None for _, given in rows):
            return [BatchRef.of(data, len(given), method.gives) for data, given in rows]
        reports = self._supervisor.wait(record)
        return [
            BatchRef.of(data, report.rows or 0, report.columns) for (data, _), report in zip(rows, reports, strict=True)
        ]

    def _check_columns(self, name: str, method: Method, call: Call) -> None:
        rows = call.rows()
        if method.needs is None or rows is None:
            return
        lacking = [column for column in method.needs if column not in rows.columns]
        if lacking:
            givers = {column: _givers(column) for column in lacking}
            told = "; ".join(
                f"{column!r} is given by {found or 'no role that is known'}" for column, found in givers.items()
            )
            raise HybridFlowError(f"{self.role}.{name} wants columns that its rows do not have: {told}")


def _givers(column: str) -> str:
    found = [
        f"{role}.{name}" for role in roles for name, m in methods(roles.get(role)).items() if column in (m.gives or ())
    ]
    return ", ".join(found)
