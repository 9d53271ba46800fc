"""Names of earlier versions, and what they are called now: told to whoever still uses one. They go with version 1.0.

Modules and names that user modules import, attributes, parameters, settings, algorithms: here are all of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

MODULES = {
    "hybridflow.algorithms.base": "hybridflow.algorithms.algorithm",
    "hybridflow.algorithms.filtering": "hybridflow.algorithms.row_filtering",
    "hybridflow.batch.ref": "hybridflow.batch.batch_ref",
    "hybridflow.batch.rows": "hybridflow.batch.row_operations",
    "hybridflow.batch.source": "hybridflow.batch.row_source",
    "hybridflow.cli.preflight": "hybridflow.preflight",
    "hybridflow.contract": "hybridflow.conformance",
    "hybridflow.controller.failure": "hybridflow.runtime.failure",
    "hybridflow.controller.pool": "hybridflow.controller.resource_pool",
    "hybridflow.controller.rank": "hybridflow.runtime.rank",
    "hybridflow.controller.report": "hybridflow.runtime.messages",
    "hybridflow.controller.sent": "hybridflow.controller.pending_call",
    "hybridflow.controller.store": "hybridflow.controller.object_store",
    "hybridflow.controller.supervise": "hybridflow.controller.supervisor",
    "hybridflow.dispatch.builtin": "hybridflow.dispatch.builtin_protocols",
    "hybridflow.dispatch.check": "hybridflow.dispatch.column_checks",
    "hybridflow.losses.aggregate": "hybridflow.losses.aggregations",
    "hybridflow.losses.constrained": "hybridflow.losses.lagrange",
    "hybridflow.losses.controllers": "hybridflow.losses.kl_controllers",
    "hybridflow.losses.correction": "hybridflow.losses.corrections",
    "hybridflow.losses.filters": "hybridflow.losses.rollout_filters",
    "hybridflow.losses.kl": "hybridflow.losses.kl_estimators",
    "hybridflow.losses.policy": "hybridflow.losses.policy_losses",
    "hybridflow.losses.preference": "hybridflow.losses.preference_losses",
    "hybridflow.losses.shaping": "hybridflow.losses.reward_shapings",
    "hybridflow.losses.value": "hybridflow.losses.value_loss",
    "hybridflow.models.shape": "hybridflow.models.model_shape",
    "hybridflow.observe.folder": "hybridflow.observe.run_folder",
    "hybridflow.observe.live": "hybridflow.observe.live_view",
    "hybridflow.parallel.meeting": "hybridflow.parallel.rendezvous",
    "hybridflow.parallel.parked": "hybridflow.parallel.offloaded",
    "hybridflow.roles.builtin": "hybridflow.roles.builtin_roles",
    "hybridflow.roles.columns": "hybridflow.dispatch.known_columns",
    "hybridflow.tasks.answers": "hybridflow.tasks.written_numbers",
    "hybridflow.tasks.base": "hybridflow.tasks.task",
    "hybridflow.tasks.fitted": "hybridflow.tasks.fitted_task",
    "hybridflow.tasks.numbers": "hybridflow.tasks.written_numbers",
    "hybridflow.tasks.preferences": "hybridflow.tasks.preference_task",
    "hybridflow.tasks.prompts": "hybridflow.tasks.prompt_order",
    "hybridflow.tasks.splits": "hybridflow.tasks.hash_splits",
    "hybridflow.trainer.apart": "hybridflow.trainer.disaggregated",
    "hybridflow.workers.base": "hybridflow.workers.worker",
    "hybridflow.workers.generation": "hybridflow.workers.generation_worker",
    "hybridflow.workers.grading": "hybridflow.workers.grading_worker",
    "hybridflow.workers.model": "hybridflow.workers.model_worker",
}
NAMES = {
    "Lagrange": "hybridflow.losses.lagrange.Lagrange",
    "held_exp": "clamped_exp",
    "Shape": "hybridflow.models.ModelShape",
}
ATTRIBUTES = {
    "Algorithm": {
        "number": "step_index",
        "measured": "on_step_end",
        "draw": "next_prompts",
        "filtered": "filter_rollout",
        "parts": "components",
        "penalises_kl": "uses_reference_kl",  # as it was spelled
    },
    "BatchRef": {
        "of": "from_chunk",
        "here": "from_local",
        "later": "deferred",
        "numbered": "with_origin",
        "marks": "driver_columns",
        "keep": "select_columns",
    },
    "Layout": {
        "heads": "output_ranks",
        "stages": "stage_ranks",
        "generation_heads": "generation_output_ranks",
    },
    "ModelWorker": {"turn": "model_loaded"},
    "ResourcePool": {"play": "start_role"},
    "Supervisor": {"drain": "finish_step", "guard": "register_pool", "look": "poll", "settle": "values"},
}
"""By class."""
PARAMETERS = {"TokenLoss": {"largest": "maxima"}}
"""By the class or function that takes them."""
SETTINGS = {
    "algorithm.most_draws": "algorithm.max_draws",
    "algorithm.lagrange.most": "algorithm.lagrange.max",
    "algorithm.lagrange.least": "algorithm.lagrange.min",
    "algorithm.policy_loss.correction.options.most": "algorithm.policy_loss.correction.options.max",
    "algorithm.policy_loss.correction.options.least": "algorithm.policy_loss.correction.options.min",
}
"""All of them are in the record of a run, whether it heeds them or not."""
FLOWS = {
    "dr_grpo": "grpo",
    "gspo": "grpo",
    "cispo": "grpo",
    "rloo": "grpo",
    "reinforce_plus_plus": "grpo",
    "cost_model": "reward_model",
}
"""Recipes that were algorithms of their own, and the flow that theirs always was."""


def hint(error: BaseException) -> str:
    """Return, to be added to an error, what a name of ours is called now; nothing if it never was one."""
    new: str | None = None
    if isinstance(error, ModuleNotFoundError):
        new = MODULES.get(error.name or "")
    elif isinstance(error, ImportError):  # only from 3.12 on it has the name beside the text
        wanted = re.search(r"cannot import name '(\w+)'", str(error))
        new = NAMES.get(wanted[1]) if wanted and (error.name or "").startswith("hybridflow.") else None
    elif isinstance(error, AttributeError):
        owner = error.obj if isinstance(error.obj, type) else type(error.obj)
        return said_of(owner, error.name or "")
    elif isinstance(error, TypeError):
        wanted = re.match(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error))
        new = PARAMETERS.get(wanted[1], {}).get(wanted[2]) if wanted else None
    return f"; it is called {new} now" if new else ""


def said_of(owner: type, name: str) -> str:
    """Return, to be added to an error, what an attribute of a class is called now; nothing if it never was one."""
    ours = (base.__name__ for base in owner.__mro__ if base.__module__.startswith("hybridflow."))
    new = next((ATTRIBUTES[base][name] for base in ours if name in ATTRIBUTES.get(base, {})), None)
    return f"; it is called {new} now" if new else ""


class Renamed:
    """Base of classes that scripts use: an attribute of an earlier version is an error that says its new name."""

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            kind = type(self)
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}{said_of(kind, name)}")
