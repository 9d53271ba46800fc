"""The base of all roles and their registry."""

from __future__ import annotations

from hybridflow.registry import Registry


class Role:
    """Something that the algorithm calls by name; see `hybridflow.roles.builtin` for examples."""


roles: Registry[type[Role]] = Registry("role", "hybridflow.roles.builtin")
