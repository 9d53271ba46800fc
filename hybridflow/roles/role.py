"""Base of all roles, and their registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import ClassVar

from hybridflow.config import sections
from hybridflow.config.schema import Config
from hybridflow.dispatch import Interface, RowsT
from hybridflow.dispatch.method import Columns, declarations
from hybridflow.errors import NameTakenError
from hybridflow.registry import Registry

TAKEN = ("grader",)
"""Names that no role is registered under, and that a run has all the same: its grader validates."""


class Role(Interface[RowsT]):
    """Base of what an algorithm calls by name; see `hybridflow.roles.builtin_roles` for examples.

    `Role[Batch]` is how a rank sees it, `Role[BatchRef]` how the controller does.

    A `light` role uses no torch and no process group, so the processes of a pool with light roles only need neither.
    """

    light: ClassVar[bool] = False

    @classmethod
    def more_columns(cls, config: Config) -> Mapping[str, Mapping[str, str]]:
        """Return by method the columns, with their kinds, that it gives under these settings beside those declared."""
        return {}

    @classmethod
    def more_read(cls, config: Config) -> Mapping[str, Columns]:
        """Return by method the columns that it reads under these settings, where rows have them, beside those
        declared.
        """
        return {}


class RoleRegistry(Registry[type[Role]]):
    """Roles by name, each with the section of settings that it brings, if any."""

    def register(self, name: str, *, settings: type | None = None) -> Callable[[type[Role]], type[Role]]:
        """Return a decorator that gives a role its name.

        Args:
            settings: a dataclass: the settings get a section of the role's name, checked as ours are; its workers read
                it as `self.context.settings`.

        Raises as `Registry.register`; TypeError for a name that no attribute can have, for a method of which it cannot
        be known whether it gives rows, and for settings that are none (`config.sections.add`).
        """
        add = super().register(name)
        if not name.isidentifier() or iskeyword(name):
            raise TypeError(f"role {name!r}: an algorithm calls it as an attribute, self.NAME; name it like a variable")
        if name in TAKEN:
            raise NameTakenError(f"role {name!r}: every run has something of that name; give the role another")

        def add_role(role: type[Role]) -> type[Role]:
            added = add(role)
            declarations(added)
            if settings is not None:
                sections.add(name, settings)
            return added

        return add_role


roles = RoleRegistry(
    "role", *(f"hybridflow.roles.{name}" for name in ("builtin_roles", "constrained", "rollout")), of=Role
)


def givers(column: str) -> list[str]:
    """List the methods that give a column, as `critic.compute_values`; of all roles that are registered."""
    return [
        f"{role}.{name}"
        for role in roles
        for name, m in declarations(roles.get(role)).items()
        if column in (m.gives or ())
    ]
