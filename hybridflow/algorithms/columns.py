"""Which columns an algorithm reads, of whom, and who gives them: the one place that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hybridflow.algorithms.algorithm import Algorithm
from hybridflow.config.schema import AlgorithmConfig
from hybridflow.dispatch import declarations
from hybridflow.roles import roles


class Reader(NamedTuple):
    """Component that reads columns.

    Attributes:
        key: of the setting that names it.
        told: what it is, in words.
        columns: those that rows must have; what every row has is not among them.
        given: those that rows of this algorithm have.
    """

    key: str
    told: str
    columns: tuple[str, ...]
    available: frozenset[str]

    @property
    def missing(self) -> list[str]:
        """Columns that nobody gives."""
        return [column for column in self.columns if column not in self.available]


def readers(config: AlgorithmConfig, algorithm: type[Algorithm]) -> Iterator[Reader]:
    """Yield the components of an algorithm that read columns: its advantage estimator, and each of its losses.

    An estimator has what the flow says that it gives (`columns`), and a critic's values. A loss has whatever a role of
    the flow gives besides. Names that are not registered are passed over. Imports torch, with which they are written.
    """
    from hybridflow.losses.advantages import advantages, needs
    from hybridflow.losses.loss import losses

    called = [role for role in algorithm.roles_of(config) if role in roles]
    own = frozenset(algorithm.columns)
    name = config.advantage.name
    if "advantage" in algorithm.components and name in advantages:
        values = {"values"} if "critic" in called else set()
        yield Reader("algorithm.advantage.name", f"{name!r}", needs(name), own | values)
    available = {
        column for role in called for method in declarations(roles.get(role)).values() for column in method.gives or ()
    }
    for loss in algorithm.losses:
        if loss in losses:
            needed = tuple(losses.get(loss).declared().needs)
            yield Reader("algorithm.name", f"loss {loss!r}", needed, own | available)
