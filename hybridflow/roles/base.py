"""The base of all roles and their registry."""

from __future__ import annotations

from typing import ClassVar

from hybridflow.registry import Registry


class Role:
    """Something that the algorithm calls by name; see `hybridflow.roles.builtin` for examples.

    A `light` role uses no torch and no process group, so the processes of a pool with light roles only need neither.
    """

    light: ClassVar[bool] = False


roles: Registry[type[Role]] = Registry("role", "hybridflow.roles.builtin")
