"""Names of earlier versions that user modules may import, and what they are called now."""

from __future__ import annotations

import re

MODULES = {
    "hybridflow.cli.preflight": "hybridflow.preflight",
    "hybridflow.losses.aggregate": "hybridflow.losses.aggregations",
    "hybridflow.losses.constrained": "hybridflow.losses.lagrange",
    "hybridflow.losses.controllers": "hybridflow.losses.kl_controllers",
    "hybridflow.losses.correction": "hybridflow.losses.corrections",
    "hybridflow.losses.filters": "hybridflow.losses.rollout_filters",
    "hybridflow.losses.kl": "hybridflow.losses.kl_estimators",
    "hybridflow.losses.policy": "hybridflow.losses.policy_losses",
    "hybridflow.losses.preference": "hybridflow.losses.preference_losses",
    "hybridflow.losses.shaping": "hybridflow.losses.reward_shapings",
    "hybridflow.models.shape": "hybridflow.models.model_shape",
    "hybridflow.tasks.answers": "hybridflow.tasks.written_numbers",
    "hybridflow.workers.model": "hybridflow.workers.model_worker",
}
NAMES = {"Lagrange": "hybridflow.losses.lagrange.Lagrange", "here": "from_local", "held_exp": "clamped_exp"}


def hint(error: BaseException) -> str:
    """Return, to be added to an error, what a name of ours is called now; nothing if it never was one."""
    if isinstance(error, ModuleNotFoundError):
        new = MODULES.get(error.name or "")
    elif isinstance(error, ImportError):  # only from 3.12 on it has the name beside the text
        wanted = re.search(r"cannot import name '(\w+)'", str(error))
        new = NAMES.get(wanted[1]) if wanted and (error.name or "").startswith("hybridflow.") else None
    elif isinstance(error, AttributeError):
        owner = error.obj if isinstance(error.obj, type) else type(error.obj)
        new = NAMES.get(error.name or "") if owner.__module__.startswith("hybridflow.") else None
    else:
        new = None
    return f"; it is called {new} now" if new else ""
