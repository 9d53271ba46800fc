"""Generation on a pool of its own, and the actor that gives it weights (docs/resharding.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridflow.config.schema import Config
from hybridflow.dispatch import RowsT, using
from hybridflow.dispatch.method import Columns
from hybridflow.parallel.layout import Layout
from hybridflow.roles.builtin_roles import PROMPT, QUESTION, ActorRole, GeneratingRole, SamplingChanges
from hybridflow.roles.role import Role, roles


class LinkedRole(Role[RowsT]):
    """Side of a refit between two pools.

    A refit is four calls: each side reports its version, one row a rank, and each then starts its part when both have.
    So neither waits for a message before the other is there to send it.
    """

    @using("one_to_all")
    def connect(self, meeting: str, training: Layout, generation: Layout) -> Any:
        """Meet the ranks of the other pool, which are called at the same time; see `resharding.pool_link.connect`."""
        raise NotImplementedError

    @using("dp_proto", needs=("rank_id",), gives=("version",))
    def report_version(self, rank_ids: RowsT) -> RowsT:
        """Return `version` ([R] int): of this rank's weights, -1 if it has none. One row a rank."""
        raise NotImplementedError


class TrainingActorRole(ActorRole[RowsT], LinkedRole[RowsT]):
    """Actor where generation has a pool of its own."""

    @using("one_to_all", needs=("version",))
    def send_weights(self, rollout_versions: RowsT) -> Any:
        """Send this rank's slices to the rollout ranks whose version, in the row of their number, is another."""
        raise NotImplementedError


class PacedRole(GeneratingRole[RowsT]):
    """Role whose rows may be sampled over many calls."""

    @classmethod
    def more_read(cls, config: Config) -> Mapping[str, Columns]:
        more = super().more_read(config)
        return {**more, "advance_rollouts": QUESTION} if more else more

    @using("3d_all_micro_dp", needs=(*PROMPT, "stream_id", "rollout_id"), optional=("sample_id",))
    def advance_rollouts(
        self,
        rows: RowsT | None,
        *,
        engine_steps: int,
        stop: Sequence[int] = (),
        step: int = 0,
        sampling: SamplingChanges | None = None,
    ) -> RowsT:
        """Take up rows, go on with all that are under way for some steps of the engine, and return those that finished.

        So rows are sampled over many calls, and between two of these anything may be called: a weight sync too, after
        which rows go on with the new weights.

        Args:
            rows: with a number each, `rollout_id`, that no other row under way has; None: no further ones.
            stop: the numbers of rows of which nothing is wanted any more; those that are not under way are ignored.
            step: as in `generate_sequences`.
            sampling: settings of `rollout` that are changed for these rows.

        Gives of the rows that finished, in no order, the columns of `generate_sequences` and `rollout_id`; their
        `weight_version` has a run for each version that sampled some of their tokens.
        """
        raise NotImplementedError


class LendingActorRole(TrainingActorRole[RowsT], PacedRole[RowsT]):
    """Actor that generates too while its slots have nothing else to do, beside the pool that generates always.

    Its calls run in the order in which they are made. So one that samples does so before what it is asked to learn
    afterwards, with the weights that it has then: those that the other pool was given by `send_weights` before it.
    """

    @using("one_to_all")
    def rest_rollouts(self) -> Any:
        """Let generation's memory go. Rows under way rest, and go on with the weights that there are by then."""
        raise NotImplementedError


@roles.register("rollout")
class RolloutRole(PacedRole[RowsT], LinkedRole[RowsT]):
    """Generation with the actor's weights."""

    @using("one_to_all", needs=("version",))
    def receive_weights(self, offered: RowsT) -> Any:
        """Take this rank's slices if the actor has another version; `offered` has its ranks'."""
        raise NotImplementedError
