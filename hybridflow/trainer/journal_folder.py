"""JournalFolder: the driver's side of the rollout journal, which ranks write and read (`workers.rollout_journal`).

The driver decides when there are new files and how much of the earlier ones is read, so that all ranks read the same,
and that no file is read which is being written. It looks into none.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hybridflow.config.schema import Config, RolloutRecovery
from hybridflow.errors import counted
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import PRIVATE
from hybridflow.roles.builtin_roles import GeneratingRole
from hybridflow.roles.rollout import TrainingActorRole

NAME = re.compile("([0-9]{6,9})-")  # as ranks name them
REUSED = "rollout/reused_rows"  # taken from the journal


class JournalFolder:
    """Journal of a run, as `rollout.recovery` has it; with `exact` there is none, and nothing here does anything.

    Args:
        groups: by role, those of the run.
    """

    def __init__(
        self, config: Config, folder: RunFolder, groups: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._folder = folder.journal
        self._groups = [group for group in groups.values() if samples(group.interface)]
        self._say = say
        self._journals = config.rollout.recovery is RolloutRecovery.durable

    def begin(self) -> None:
        """Let all ranks that sample write to new files, and know the rows that are in those from before.

        None of them samples meanwhile. Raises RoleError if one cannot read them.
        """
        if not self._journals:
            if self._folder.exists():
                self._say(f"rollout.recovery = exact: what was journaled in {self._folder} is not used, and removed")
                shutil.rmtree(self._folder)
            return
        with writing(self._folder):
            self._folder.mkdir(mode=PRIVATE, exist_ok=True)
        earlier = self._sizes()
        if known := self._tell(earlier):
            self._say(
                f"in the journal, sampled since the last checkpoint: {counted(known, 'row')}; what is asked for of "
                "them is not made again"
            )

    def clear(self) -> None:
        """Let go of the rows that were sampled by now: what they taught is saved, or nobody will come back to it."""
        if not self._journals:
            return
        earlier = self._sizes()
        self._tell({}, above=earlier)
        for name in earlier:
            (self._folder / name).unlink()

    def remove(self) -> None:
        """Remove the journal of a run that is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sizes(self) -> dict[str, int]:
        with writing(self._folder):  # somebody may have put something else in its place
            return {file.name: file.stat().st_size for file in sorted(self._folder.iterdir()) if number_of(file.name)}

    def _tell(self, earlier: Mapping[str, int], above: Mapping[str, int] | None = None) -> int:
        """Give ranks a new file each; return how many rows of earlier ones they know."""
        number = 1 + max((number_of(name) for name in above or earlier), default=0)
        calls = [group.journal_rollouts(str(self._folder), number, dict(earlier)) for group in self._groups]
        return max((known or 0 for call in calls for known in call.get()), default=0)


def told(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield what a user should know of the rows of a step that were in the journal, or could not be put there."""
    if reused := metrics.get(REUSED):
        yield f"from the journal, as they had been sampled: {counted(int(reused), 'row')}"
    if stale := metrics.get("rollout/stale_rows"):
        yield (
            "in the journal, but sampled by other weights, settings or prompts (logs/ of ranks say how), and made "
            f"again: {counted(int(stale), 'row')}"
        )
    if lost := metrics.get("rollout/unjournaled_rows"):
        yield f"warning: in no journal, as the disk takes no more: {counted(int(lost), 'row')}"


def number_of(name: str) -> int:
    """Return the number that a file of the journal begins with; 0 of one that is none."""
    number = NAME.match(name)
    return int(number[1]) if number else 0


def samples(interface: type) -> bool:
    """Tell whether ranks of a role sample: an actor whose generation is elsewhere does not."""
    return issubclass(interface, GeneratingRole) and not issubclass(interface, TrainingActorRole)
