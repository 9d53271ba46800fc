"""Attributes that an algorithm does not have: a name of earlier versions, or a role that it must name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridflow.errors import HybridFlowError
from hybridflow.former_names import ATTRIBUTES

if TYPE_CHECKING:
    from hybridflow.algorithms.algorithm import Algorithm

# Also where they are declared: a method that overrides an old one would never be called, and nobody told.
RENAMED = ATTRIBUTES["Algorithm"]


class RenamedError(HybridFlowError, AttributeError):
    """Use of an attribute that has another name now; for `hasattr` it is not there, as any that never was."""


class MissingRoleError(HybridFlowError, AttributeError):
    """Call of a role that the algorithm does not name; for `hasattr` it is not there."""


def refuse_renamed(cls: type, *names: str) -> None:
    """Raise RenamedError if any of these names of an algorithm's class is an old one."""
    for name in names:
        if name in RENAMED:
            raise RenamedError(f"{cls.__name__}: {name} is called {RENAMED[name]} now; rename it in {cls.__module__}")


def missing_role(cls: type[Algorithm], role: str) -> MissingRoleError:
    """Say why an algorithm has not got a role, and what to do."""
    if role in cls.only_for_kl:
        return MissingRoleError(
            f"{cls.__name__} asks for its role {role!r}, which is not started where no KL is penalized (only_for_kl; "
            "reward_kl_coef and policy_loss.kl_coef are 0): ask self.uses_reference_kl first"
        )
    if role in cls.roles:
        return MissingRoleError(
            f"{cls.__name__} asks for its role {role!r} before it has it: does its __init__ call super().__init__?"
        )
    return MissingRoleError(
        f"{cls.__name__} asks for the role {role!r}, which is not among its roles ({', '.join(cls.roles) or 'none'}): "
        f"name it there, roles = {(*cls.roles, role)}, or do not call it"
    )
