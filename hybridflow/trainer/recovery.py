"""Recovery: a run that lost processes, or a node, is given others and makes the interrupted step again, whole.

What a step is given does not depend on how often it is made: its prompts, seeds and weights are those of its number.
So the weights in the end are, bit for bit, those of a run that nothing happened to; unless `rollout.recovery` is
`durable`: then rows that were finished are taken from a journal, and the others are sampled without these beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from hybridflow import interrupt
from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.runtime.failure import Failure, FailureKind, RoleError
from hybridflow.trainer import checkpoint
from hybridflow.trainer.build import Running
from hybridflow.trainer.checkpoint_store import Checkpoints, verify
from hybridflow.trainer.goodput import Spent, WallClock
from hybridflow.trainer.journal_folder import JournalFolder
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.recovery_states import Limits, Phase, RecoveryState, may_have_changed

SETTLE_S = 15.0  # that ranks of other pools have to finish what they were asked; to start new ones takes as long
POOL_KEY = "placement.pools."


@dataclass(frozen=True)
class Mark:
    """What the driver knew between two steps.

    Attributes:
        sizes: of the run folder's growing files.
        validates: the step before it has been taken, and what comes after a step (a validation, a save) has not.
    """

    progress: Progress
    algorithm: dict[str, Any]
    sizes: dict[str, int]
    validates: bool


class Recovery:
    """Brings a run back to work after a failure, as often as its settings allow.

    Args:
        source: the checkpoint that this process began from, if any.
        progress: of the run; it is changed in place.
        clock: what its time goes into.
        journal: of rows that need not be made again.
    """

    def __init__(
        self,
        config: Config,
        running: Running,
        folder: RunFolder,
        progress: Progress,
        source: Path | None,
        say: Callable[[str], None],
        clock: WallClock,
        journal: JournalFolder | None = None,
    ) -> None:
        self._clock = clock
        progress.spent = clock.seconds
        self._running = running
        self._journal = journal
        self._folder = folder
        self._progress = progress
        self._source = source
        self._say = say
        self._trained = checkpoint.trained(running)
        self._state = RecoveryState(
            frozenset(running.pools),
            frozenset(running.placement.pool_of(role).name for role in self._trained),
            Limits(config.trainer.max_failures, config.trainer.failure_window_s),
        )
        self.mark()
        self._start = self._mark

    @property
    def validates(self) -> bool:
        """Tell whether the last step is done, but for what comes after it."""
        return self._mark.validates

    def mark(self, *, validates: bool = False) -> None:
        """Remember how things stand now, between two steps: no call is under way."""
        algorithm = deepcopy(self._running.algorithm.state())
        self._mark = Mark(deepcopy(self._progress), algorithm, self._folder.sizes(synced=False), validates)
        self._running.supervisor.forget_calls()

    def go_on(self, work: Callable[[], None]) -> None:
        """Do this work, and again from where it is left after each failure.

        Raises RoleError if there is no going on.
        """
        while True:
            try:
                work()
                return
            except RoleError as error:
                self._recover(error)

    def _recover(self, error: RoleError) -> None:
        begun = monotonic()
        self._clock.fail(self._running.supervisor.health.unseen_s())
        while True:
            self._fail(error)
            tried = monotonic()
            try:
                pools = self._settle(error.failure)
                settled = monotonic()
                for pool in pools:
                    self._running.pools[pool].restart()
                self._running.let_pools_meet()
                rebuilt = monotonic()
                if self._journal:
                    self._journal.begin()
                self._state = self._state.rebuild()
                self._restore()
                break
            except RoleError as another:
                error = another
        self._state = self._state.restore()
        self._clock.enter(Spent.other)
        seconds = monotonic() - begun
        self._say(f"went on with step {self._progress.steps} after {seconds:.1f} s")
        self._folder.event(
            "recovery", step=self._progress.steps, pools=pools, seconds=round(seconds, 3),
            settle_s=round(settled - tried, 3), start_s=round(rebuilt - settled, 3),
            processes=self._running.processes(),
        )  # fmt: skip

    def _fail(self, error: RoleError) -> None:
        """Take in a failure and tell it. Raises it if there is no going on."""
        if interrupt.asked():  # whoever wants the run to stop does not want it begun anew
            interrupt.stop()
        failure = error.failure
        self._state = self._state.fail(failure.kind, monotonic())
        goes_on = self._state.phase is not Phase.ended
        self._folder.event(
            "failure", kind=failure.kind, role=failure.role, method=failure.method, rank=failure.rank,
            node=failure.node, step=failure.step, error=failure.error, goes_on=goes_on,
        )  # fmt: skip
        limits = self._state.limits
        if not goes_on:
            too_many = failure.kind is FailureKind.INFRA and len(self._state.failures) > limits.max_failures
            if limits.max_failures and too_many:
                self._say(
                    f"{len(self._state.failures)} failures in {limits.window_s:g} s: trainer.max_failures = "
                    f"{limits.max_failures} allows no more"
                )
            raise error
        self._say(f"failure {len(self._state.failures)} of {limits.max_failures} that it goes on after: {failure}")

    def _settle(self, failure: Failure) -> list[str]:
        """Let the ranks that live come to rest; return the pools that are to be rebuilt."""
        supervisor = self._running.supervisor
        pools = self._running.pools
        # What only says that another rank was not there says little of its own pool.
        lost = supervisor.quiesce(pools[self._pool_of(failure.role)], SETTLE_S, sure=not failure.of_link)
        changed = may_have_changed(supervisor.called, self._trained)
        supervisor.resume()
        names = [name for name, pool in pools.items() if pool in lost]
        self._state = self._state.settle(names, changed=changed, checkpoint=self._checkpoint() is not None)
        rebuilt = [name for name in pools if name in self._state.lost]
        self._say(f"new processes for pool {', '.join(rebuilt)}; {self._where_to()}")
        return rebuilt

    def _pool_of(self, role: str) -> str:
        if role.startswith(POOL_KEY):
            return role.removeprefix(POOL_KEY)
        return self._running.placement.pool_of(role).name

    def _checkpoint(self) -> Path | None:
        """Return the checkpoint to go back to; None: there is none, so it is the start."""
        return Checkpoints(self._folder.checkpoints).newest() or self._source

    def _where_to(self) -> str:
        if not self._state.must_reload:
            return f"step {self._mark.progress.steps} is made again, and nothing is loaded"
        path = self._checkpoint()
        if path is None:
            return f"back to step {self._start.progress.steps}, for no checkpoint is kept (trainer.save_every)"
        return f"back to {path.name}"

    def _restore(self) -> None:
        """Bring the driver, and learners if they are not what they were, back to where the step is made again from."""
        if self._state.must_reload:
            self._reload()
        else:
            self._take(self._mark)
        self.mark(validates=self._mark.validates)

    def _reload(self) -> None:
        path = self._checkpoint()
        if path is None:
            self._take(self._start)
            return
        verify(path)
        progress = checkpoint.load(self._running, path)
        own = path.parent == self._folder.checkpoints
        sizes = checkpoint.sizes(path) if own else self._start.sizes
        if not own:
            progress.rows_fingerprint = self._progress.rows_fingerprint
        self._go_back_to(progress)
        self._folder.truncate_to(sizes)
        self._mark = Mark(progress, {}, sizes, validates=False)

    def _take(self, mark: Mark) -> None:
        """Go back to what the driver knew."""
        self._go_back_to(deepcopy(mark.progress))
        try:
            self._running.algorithm.restore(deepcopy(mark.algorithm))
        except Exception as error:
            raise HybridFlowError(f"the algorithm cannot take back the state that it gave: {error}") from error
        self._folder.truncate_to(mark.sizes)
        self._mark = mark

    def _go_back_to(self, progress: Progress) -> None:
        """Take over what had been measured by then, but for the time: what was lost has taken some too."""
        self._clock.lose_steps(progress.spent)
        progress.spent = self._clock.seconds
        progress.seconds = self._progress.seconds
        vars(self._progress).update(vars(progress))
