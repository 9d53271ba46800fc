"""Plugin with a role that turns the rollout journal of the actor on its rank on and off, between two steps."""

from __future__ import annotations

from typing import Any

from hybridflow.batch import Batch
from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.workers import Worker
from hybridflow.workers.rollout_journal import RolloutJournal


@roles.register("journal_switch")
class JournalSwitch(Role[Batch], Worker):
    """Switch beside the actor."""

    _journal: RolloutJournal | None = None

    @using("one_to_all")
    def switch(self, on: bool) -> Any:
        """Let the actor here journal its rows and identify its weights, or do neither, as with `exact`."""
        actor: Any = self.context.peers["actor"]
        self._journal = actor.journal or self._journal
        actor.journal = self._journal if on else None
        actor.refit._identify = on
