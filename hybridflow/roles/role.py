"""The base of all roles and their registry."""

from __future__ import annotations

from typing import ClassVar

from hybridflow.dispatch import Interface, RowsT, methods
from hybridflow.registry import Registry


class Role(Interface[RowsT]):
    """Something that the algorithm calls by name; see `hybridflow.roles.builtin_roles` for examples.

    `Role[Batch]` is how a rank sees it, `Role[BatchRef]` how the controller does.

    A `light` role uses no torch and no process group, so the processes of a pool with light roles only need neither.
    """

    light: ClassVar[bool] = False


roles: Registry[type[Role]] = Registry(
    "role", *(f"hybridflow.roles.{name}" for name in ("builtin_roles", "constrained", "rollout")), of=Role
)


def givers(column: str) -> list[str]:
    """The methods that give a column, as `critic.compute_values`; of all roles that are registered."""
    return [
        f"{role}.{name}" for role in roles for name, m in methods(roles.get(role)).items() if column in (m.gives or ())
    ]
