"""StepTraces: what torch computed in the steps that `trainer.profile_steps` names, on every rank with a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hybridflow.controller import ResourcePool
from hybridflow.observe.disk_errors import DiskError


class StepTraces:
    """Lets ranks record a step from its begin to its end, whatever calls these are of, and write it.

    A failure leaves ranks that live recording. Whichever step is made next begins anew, or lets go of it.
    A disk that takes no more ends no run: it goes on without that file.

    Args:
        steps: those to record.
        taken: how many steps the run had taken before this process.
        folder: of the files.
        pools: by name.
        say: is told of a file that there is not.
    """

    def __init__(
        self,
        steps: Sequence[int],
        taken: int,
        folder: Path,
        pools: Mapping[str, ResourcePool],
        say: Callable[[str], None],
    ) -> None:
        for step in (step for step in steps if step < taken and not any(folder.glob(f"step-{step}-*"))):
            say(f"trainer.profile_steps: there is no trace of step {step}, as it was taken before")
        self._steps = frozenset(steps)
        self._folder = folder
        self._pools = pools
        self._say = say
        self._recording = False

    def begin_step(self, step: int) -> None:
        """Let ranks record from now on if this step is to be, and else let go of what a failure has left."""
        if step in self._steps:
            self._recording = True
            for pool in self._pools.values():
                pool.start_traces()
        elif self._recording:
            self._write("")
            self._recording = False

    def end_step(self, step: int) -> None:
        """Let ranks write what they recorded of a step, and wait for it: what comes after takes no longer than ever."""
        if step in self._steps:
            self._write(f"{self._folder}/step-{step}-")
            self._recording = False

    def _write(self, prefix: str) -> None:
        for name, pool in self._pools.items():
            found = pool.write_traces(prefix and f"{prefix}{name}-")
            for error in (one for one in found if isinstance(one, DiskError)):
                self._say(f"warning: {error}: there is no trace of it")
