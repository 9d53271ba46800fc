"""A role that says which platform its ranks have; the ranks import this module as a plugin."""

from __future__ import annotations

from typing import Any

from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.workers import Worker


@roles.register("device_role")
class DeviceRole(Role, Worker):
    """Asks for the platform after its process has joined the others."""

    @using("all_to_all")
    def platform(self) -> Any:
        from hybridflow.parallel.platform import platform

        return platform().name
