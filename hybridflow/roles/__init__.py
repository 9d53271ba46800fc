"""Roles and what each can do: its methods with their protocols and columns. No Ray, no engine.

A role class is both the interface that a group shows on the controller and the base of the worker that runs on the
ranks. Its methods take a `Batch` on a rank; on the controller the same call takes and gives a `BatchRef`.
"""

from hybridflow.roles.builtin_roles import (
    ActorRole,
    AdvantageRole,
    CriticRole,
    GradedModelRewardRole,
    ModelRewardRole,
    ReferenceRole,
    RewardModelRole,
    RewardRole,
    SamplingChanges,
    TrainedRole,
    is_policy,
    is_second_policy,
)
from hybridflow.roles.constrained import CostCriticRole, CostRole, ModelCostRole
from hybridflow.roles.role import Role, givers, roles

__all__ = [
    "ActorRole",
    "AdvantageRole",
    "CostCriticRole",
    "CostRole",
    "CriticRole",
    "GradedModelRewardRole",
    "ModelCostRole",
    "ModelRewardRole",
    "ReferenceRole",
    "RewardModelRole",
    "RewardRole",
    "Role",
    "SamplingChanges",
    "TrainedRole",
    "givers",
    "is_policy",
    "is_second_policy",
    "roles",
]
