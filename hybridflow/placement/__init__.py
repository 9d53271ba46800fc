"""Placement as a value: pools of slots, and who runs on them in which layout. No Ray, no engine.

`resolve` makes one from the settings, preflight says what is wrong with it, the trainer starts what it names, and a
role that must be started again is started from its `RoleSpec`. Nobody else decides who is where.
"""

from hybridflow.placement.placed_roles import engines_of, model_device, settings_of_worker, started_roles
from hybridflow.placement.placement_problems import problems
from hybridflow.placement.placement_specs import GRADER, Engines, Placement, PoolSpec, RoleSpec
from hybridflow.placement.resolve_placement import resolve

__all__ = [
    "GRADER",
    "Engines",
    "Placement",
    "PoolSpec",
    "RoleSpec",
    "engines_of",
    "model_device",
    "problems",
    "resolve",
    "settings_of_worker",
    "started_roles",
]
