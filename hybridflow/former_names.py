"""Names of earlier versions that user modules may import, and what they are called now."""

from __future__ import annotations

import re

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
    "here": "from_local",
    "held_exp": "clamped_exp",
    "Shape": "hybridflow.models.ModelShape",
    "keep": "select_columns",
    "later": "deferred",
    "numbered": "with_origin",
    "marks": "driver_columns",
}


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
