"""The state machine of going on: what it does, and the transitions that do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hybridflow.runtime.failure import FailureKind
from hybridflow.trainer.recovery_states import Limits, Phase, RecoveryState, may_have_changed

POOLS = frozenset({"learn", "sample", "judge"})
START = RecoveryState(POOLS, frozenset({"learn"}), Limits(2, 100.0))
INFRA = FailureKind.INFRA


def failed(state: RecoveryState, now: float = 0.0, kind: FailureKind = INFRA) -> RecoveryState:
    return state.fail(kind, now)


def settled(
    state: RecoveryState, lost: Iterable[str], *, changed: bool = False, checkpoint: bool = True
) -> RecoveryState:
    return state.settle(lost, changed=changed, checkpoint=checkpoint)


def test_a_lost_pool_alone_is_rebuilt_and_nothing_reloaded() -> None:
    rebuilding = settled(failed(START), ["sample"])
    assert rebuilding.lost == {"sample"} and not rebuilding.must_reload
    assert rebuilding.rebuild().restore() == replace(START, failures=(0.0,))


@pytest.mark.parametrize(("lost", "changed"), [("learn", False), ("sample", True)])
def test_a_learner_that_is_lost_or_has_learned_goes_back(lost: str, changed: bool) -> None:
    state = settled(failed(START), [lost], changed=changed)
    assert state.must_reload and state.lost == {lost}


def test_without_a_checkpoint_learners_are_begun_anew() -> None:
    state = settled(failed(START), ["sample"], changed=True, checkpoint=False)
    assert state.lost == {"sample", "learn"}
    assert settled(failed(START), ["sample"], checkpoint=False).lost == {"sample"}


def test_what_cannot_be_rebuilt_alone_is_rebuilt_with_all() -> None:
    again = failed(settled(failed(START), ["sample"]), now=1.0)
    assert (again.phase, again.lost) == (Phase.settling, POOLS)


def test_failures_are_bounded_within_a_window() -> None:
    state = failed(settled(failed(START, now=0.0), []).rebuild().restore(), now=99.0)
    assert state.phase is Phase.settling
    assert failed(state, now=99.5).phase is Phase.ended
    assert failed(state, now=101.0).phase is Phase.settling, "the first is no longer in it"


@pytest.mark.parametrize("kind", [FailureKind.BUG, FailureKind.DATA])
def test_what_would_fail_again_ends_it(kind: FailureKind) -> None:
    assert failed(START, kind=kind).phase is Phase.ended


def test_what_changes_a_learner() -> None:
    assert not may_have_changed([("actor", "compute_log_prob"), ("reward", "compute_reward")], ["actor"])
    lent = [("actor", "generate_sequences"), ("actor", "advance_rollouts"), ("actor", "rest_rollouts")]
    assert not may_have_changed(lent, ["actor"])
    assert may_have_changed([("actor", "update_actor")], ["actor"])
    assert may_have_changed([("mine", "a_method_of_a_users")], ["mine"])
    assert not may_have_changed([("mine", "a_method_of_a_users")], ["actor"])


class Recovering(RuleBasedStateMachine):
    """Any order of events, also those that no run should have; a model beside it counts what must hold."""

    @initialize(
        learners=st.frozensets(st.sampled_from(sorted(POOLS)), min_size=1), most=st.integers(0, 3)
    )  # fmt: skip
    def start(self, learners: frozenset[str], most: int) -> None:
        self.state = RecoveryState(POOLS, learners, Limits(most, 10.0))
        self.now = 0.0
        self.bad: set[str] = set()  # pools without a rank that can be used
        self.stale = False  # a learner is not what the step begins from
        self.working = False  # a rank may still be at work on the interrupted step

    @rule(kind=st.sampled_from(FailureKind), after=st.integers(0, 12), lost=st.sampled_from(sorted(POOLS)))
    @precondition(lambda self: self.state.phase is not Phase.ended)
    def fail(self, kind: FailureKind, after: int, lost: str) -> None:
        self.now += after
        half = self.state.phase is Phase.restoring
        before = self.state
        self.state = self.state.fail(kind, self.now)
        self.bad.add(lost)
        self.working = True
        self.stale = self.stale or half
        if kind is not INFRA:
            assert self.state.phase is Phase.ended
        if before.phase is Phase.rebuilding and self.state.phase is Phase.settling:
            assert self.state.lost == POOLS

    @rule(changed=st.booleans(), checkpoint=st.booleans())
    def settle(self, changed: bool, checkpoint: bool) -> None:
        if self.state.phase is not Phase.settling:
            with pytest.raises(ValueError, match="cannot do what follows settling"):
                settled(self.state, self.bad, changed=changed, checkpoint=checkpoint)
            return
        self.state = settled(self.state, self.bad, changed=changed, checkpoint=checkpoint)
        self.stale = self.stale or changed
        self.working = False
        assert self.bad <= self.state.lost
        if self.state.must_reload and not checkpoint:
            assert self.state.learners <= self.state.lost

    @rule()
    def rebuild(self) -> None:
        if self.state.phase is not Phase.rebuilding:
            with pytest.raises(ValueError, match="cannot do what follows rebuilding"):
                self.state.rebuild()
            return
        if self.state.lost & self.state.learners:
            self.stale = True  # new processes
        self.bad -= self.state.lost
        self.state = self.state.rebuild()

    @rule()
    def restore(self) -> None:
        if self.state.phase is not Phase.restoring:
            with pytest.raises(ValueError, match="cannot do what follows restoring"):
                self.state.restore()
            return
        if self.state.must_reload:
            self.stale = False
        self.state = self.state.restore()

    @invariant()
    def a_run_that_goes_on_is_whole(self) -> None:
        state = getattr(self, "state", None)
        if state is None:
            return
        if state.phase is Phase.running:
            assert not self.bad and not self.stale and not self.working
            assert not state.lost and not state.changed
        if state.phase is not Phase.ended:
            assert len(state.failures) <= state.limits.max_failures
        else:
            with pytest.raises(ValueError, match="has ended"):
                failed(state)


TestRecovering = Recovering.TestCase
TestRecovering.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
