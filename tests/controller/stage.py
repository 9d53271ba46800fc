"""Ranks with the roles of `rank_functions`."""

from __future__ import annotations

from typing import Any

from hybridflow.controller import ResourcePool, Supervisor
from hybridflow.parallel.layout import Layout
from tests.controller import rank_functions


class Stage:
    """A pool of light ranks and its supervisor."""

    def __init__(self, slots: int, supervisor: Supervisor | None = None) -> None:
        self.supervisor = supervisor or Supervisor()
        self._started: dict[tuple[str, Layout | None], Any] = {}
        self.pool = ResourcePool("stage", slots, self.supervisor, plugins=[rank_functions.__name__])

    def start_role(self, role: str, layout: Layout | None = None, **options: Any) -> Any:
        return self.pool.start_role(role, layout or Layout(data=self.pool.slots), **options)

    def start_role_once(self, role: str, layout: Layout | None = None) -> Any:
        """Give the group of a role, built at the first call."""
        if (role, layout) not in self._started:
            self._started[role, layout] = self.start_role(role, layout)
        return self._started[role, layout]
