"""The roles of a limit on costs (HybridFlow, section 4.1: cost; Safe-RLHF, arXiv 2310.12773: its critic)."""

from __future__ import annotations

from hybridflow.dispatch import RowsT, using
from hybridflow.dispatch.known_columns import SHARED_PREFIXES, kinds
from hybridflow.losses.loss import reads_of
from hybridflow.roles.builtin_roles import FAILURE, GRADED, LOSS_MASK, RESPONSE, SEEN, TrainedRole
from hybridflow.roles.role import Role, roles


@roles.register("cost")
class CostRole(Role[RowsT]):
    """Grader of what responses should not be."""

    light = True

    @using("dp_proto", needs=GRADED, optional=SEEN, gives=kinds("costs"))
    def compute_cost(self, rollout: RowsT) -> RowsT:
        """Return `costs` ([R] float): the grade of each response; less is better."""
        raise NotImplementedError


class ModelCostRole(Role[RowsT]):
    """Cost model: what the role `cost` can do with a model as its worker."""

    @using("dp_tokens", needs=RESPONSE, optional=FAILURE | SHARED_PREFIXES, gives=kinds("costs"))
    def compute_cost(self, rollout: RowsT) -> RowsT:
        """Return `costs` ([R] float): the model's score of each row, at its last token; less is better."""
        raise NotImplementedError


@roles.register("cost_critic")
class CostCriticRole(TrainedRole[RowsT]):
    """Value function of costs."""

    @using("dp_tokens", needs=RESPONSE, optional=LOSS_MASK | SHARED_PREFIXES, gives=kinds("cost_values"))
    def compute_cost_values(self, rollout: RowsT) -> RowsT:
        """Return `cost_values` (ragged float): the cost to be expected from the state before each response token."""
        raise NotImplementedError

    @using("dp_tokens", needs=reads_of("cost_value"))
    def update_cost_critic(self, rollout: RowsT) -> None:
        """Take an optimizer step on the value loss of these rows, but for those with a grade that has failed."""
        raise NotImplementedError
