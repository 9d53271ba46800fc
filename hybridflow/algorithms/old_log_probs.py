"""Old log-probs: who reads those of a rollout before the first update on it, which else has them by itself.

The policy that a step begins with is the one whose first update is taken: that update's own forward pass gives the very
log-probs that a pass before it would give. So rows need no pass of their own unless something reads them earlier, or
another update comes first. What is read is declared; what does not say what it reads may read anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hybridflow.batch import BatchRef
from hybridflow.batch.joining import concat
from hybridflow.config.schema import AlgorithmConfig
from hybridflow.dispatch import Method, declarations
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.losses.loss import losses
from hybridflow.roles import ActorRole, Role, roles

if TYPE_CHECKING:
    from hybridflow.algorithms.algorithm import Algorithm

OUR_LOSSES = {
    "policy": True,
    "supervised": False,
    "dpo": False,
    "value": False,
    "cost_value": False,
    "pairs": False,
}
"""Our losses, and whether each is of old log-probs: to know that, a plan need not import torch."""
OUR_ESTIMATORS = frozenset(
    ("gae", "grpo", "gdpo", "rloo", "remax", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
)
"""Our advantage estimators, none of which reads old log-probs."""


def early_readers(config: AlgorithmConfig, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield what wants old log-probs before a step's first update, as `key: what it is`; nothing: none does."""
    if config.epochs > 1:
        yield f"algorithm.epochs: rows are learned from {config.epochs} times"
    if config.reward_kl_coef:
        yield "algorithm.reward_kl_coef: the KL inside the rewards"
    if "advantage" in algorithm.components and _estimator_reads(config.advantage.name):
        yield f"algorithm.advantage.name: {config.advantage.name!r} reads them"
    if OLD_LOG_PROBS in algorithm.columns:
        yield "algorithm.name: its flow gives them as a column"
    if not of_old_log_probs(algorithm):
        yield "algorithm.name: it names no loss of them that its updates minimize"
    for loss in algorithm.losses:
        if loss not in OUR_LOSSES and loss in losses and _reads_early(loss):
            yield f"algorithm.name: loss {loss!r} reads them of all rows at once, or where there are any"
    for role in algorithm.roles_of(config):
        for name, method in declarations(roles.get(role)).items() if role in roles else ():
            if _may_read(roles.get(role), name, method):
                yield f"algorithm.name: {role}.{name} may read them"


def of_old_log_probs(algorithm: type[Algorithm]) -> bool:
    """Tell whether an algorithm names a loss that can take an update's own log-probs for old ones."""
    return any(
        OUR_LOSSES[loss] if loss in OUR_LOSSES else loss in losses and losses.get(loss).takes_own_log_probs()
        for loss in algorithm.losses
    )


def scored_but_first(parts: Sequence[BatchRef], actor: ActorRole[BatchRef]) -> list[BatchRef]:
    """Return parts of a step's rows, all but the first with old log-probs: of one call, before there is any update."""
    later = parts[1:]
    if not later:
        return [*parts]
    rows = concat(later)
    rows |= actor.compute_log_prob(rows)
    ends = np.cumsum([len(part) for part in later]).tolist()
    return [parts[0], *(rows.slice(end - len(part), end) for part, end in zip(later, ends, strict=True))]


def _estimator_reads(name: str) -> bool:
    if name in OUR_ESTIMATORS:
        return False
    from hybridflow.losses.advantages import advantages, needs, reads_too

    return name in advantages and OLD_LOG_PROBS in (*needs(name), *reads_too(name))


def _reads_early(loss: str) -> bool:
    cls = losses.get(loss)
    needs, optional = cls.declared()
    return OLD_LOG_PROBS in (*needs, *optional) and not cls.takes_own_log_probs()


def _may_read(role: type[Role], name: str, method: Method) -> bool:
    """Tell whether a method that is no update reads old log-probs, as it declares or does not say."""
    if method.reads_of is not None:  # an update: of losses
        return False
    if method.reads is not None:
        return OLD_LOG_PROBS in method.reads
    return not getattr(role, name).__module__.startswith("hybridflow.")
