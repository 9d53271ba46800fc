"""FlowCosts: what the roles of a run take, by the calls of its flow and where an arrangement has them.

How a schedule makes its calls is in three ways:

* sync makes all calls of a step at once; each starts when its rows are there and its pool is free;
* one_step_off makes those of `rollout` when a step's prompts are admitted, those of `learn` when these are done;
* the others begin rows one by one, in slots, and make all other calls when the rows that they learn from are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt

import numpy as np

from hybridflow.planning.arrangement import Arrangement, Seat
from hybridflow.planning.call_costs import Simulators
from hybridflow.planning.generation_cost import Replica, replica_of
from hybridflow.planning.run_costs import Lengths, RunCosts
from hybridflow.planning.run_spec import RunSpec, Work
from hybridflow.planning.simulated_pools import Job
from hybridflow.planning.training_cost import Occupation
from hybridflow.scheduling import SchedulePolicy

ENGINE_STEPS = 8  # of a call on rows in slots
MAX_DEVIATIONS = 3.0


class FlowCosts(RunCosts):
    """Costs of a run's calls.

    Args:
        policy: of its schedule; of fewer prompts a step than the run's, each stands for several.

    Attributes:
        is_whole: a step is over before the next one begins, as sync has it.
    """

    def __init__(self, spec: RunSpec, arrangement: Arrangement, simulators: Simulators, policy: SchedulePolicy) -> None:
        self._spec = spec
        self._arrangement = arrangement
        self._simulators = simulators
        self.is_whole = policy.max_staleness == 0 and policy.minibatches == 1 and not policy.spare_prompts
        self._by_steps = self.is_whole or policy.whole_batches
        calls = [*range(len(spec.flow))]
        first = next((place for place in calls if spec.flow[place].work is Work.generate), None)
        self._first = first
        self._sampling = calls if self.is_whole else [place for place in calls if spec.flow[place].samples]
        self._learning = [] if self.is_whole else [place for place in calls if not spec.flow[place].samples]
        self._flow = list(spec.flow)
        hardware = simulators.hardware
        self.cores = float(hardware.cores * ceil(sum(arrangement.pools.values()) / hardware.devices_per_node))
        self._set_pools()
        self.slots = self.lent_slots = 0
        self._scale = spec.prompts / policy.prompts_per_step
        if first is not None and not self._by_steps:
            self._learning = [place for place in calls if place != first]
            self._sampling = []
            if policy.minibatches > 1:
                self._learn_in_parts(policy.minibatches)
            self._set_slots()

    def _set_pools(self) -> None:
        seats = self._arrangement.seats
        learner = seats.get("actor") or next(iter(seats.values()))
        self.learner = learner.pool
        self.generator = seats[self._arrangement.generator].pool if self._first is not None else learner.pool

    def _learn_in_parts(self, parts: int) -> None:
        """Make the flow what a schedule calls for each of a step's parts: one update of each kind, of fewer rows."""
        last = {(call.role, call.method): place for place, call in enumerate(self._flow)}
        kept = [place for place in self._learning if last[self._flow[place].role, self._flow[place].method] == place]
        rows = {place: self._rows_of_all(place) / parts for place in kept}
        self._learning = kept
        for place in kept:
            self._flow[place] = replace(self._flow[place], rows=max(1, round(rows[place])))

    def _rows_of_all(self, place: int) -> int:
        call = self._flow[place]
        if call.work is not Work.train:
            return call.rows
        return sum(other.rows for other in self._flow if (other.role, other.method) == (call.role, call.method))

    # Generation in slots

    def _set_slots(self) -> None:
        assert self._first is not None
        self._paces = {False: self._pace_table(self._seat(self._first))}
        self.slots = max(1, round(len(self._paces[False]) * self._replicas(False) / self._scale))
        if self._arrangement.lends:
            self._paces[True] = self._pace_table(self._arrangement.seats["actor"])
            self.lent_slots = max(1, round(len(self._paces[True]) * self._replicas(True) / self._scale))

    def _replicas(self, lent: bool) -> int:
        role = "actor" if lent else self._arrangement.generator
        return self._arrangement.seats[role].layout.replicas

    def _replica(self, seat: Seat) -> Replica:
        return replica_of(self._simulators.hardware, self._spec.models["actor"], seat.layout)

    def _pace_table(self, seat: Seat) -> np.ndarray:
        """Return the seconds of a token with 1, 2, … rows on a replica, with its share of their prompts and calls."""
        spec = self._spec
        replica = self._replica(seat)
        rows = np.arange(1, replica.places(spec) + 1)
        steps = replica.step_s(rows, spec.prompt_tokens.mean + spec.response_tokens.mean / 2)
        prompt = replica.prefill_s(1.0, spec.prompt_tokens.mean) / spec.samples / max(spec.response_tokens.mean, 1.0)
        called = self._simulators.hardware.overheads.call / ENGINE_STEPS
        table: np.ndarray = steps + rows * prompt + called
        return table

    def pace(self, rows: int, *, lent: bool) -> float:
        table = self._paces[lent]
        each = ceil(rows * self._scale / self._replicas(lent))
        return float(table[min(max(each, 1), len(table)) - 1])

    def generating_ranks(self, rows: int, *, lent: bool) -> float:
        role = "actor" if lent else self._arrangement.generator
        layout = self._arrangement.seats[role].layout
        return float(min(layout.size, rows * self._scale * layout.size / layout.replicas))

    # Calls

    def sampling(self, lengths: Lengths) -> Sequence[Job]:
        return self._jobs(self._sampling, lengths)

    def learning(self, lengths: Lengths) -> Sequence[Job]:
        return self._jobs(self._learning, lengths)

    def syncing(self) -> Job:
        if self._first is None:
            return Job(self.generator, "actor", "sync_weights", 0.0, 0.0)
        seats = self._arrangement.seats
        apart = seats["rollout"].layout if "rollout" in seats else None
        asked = self._simulators.sync_occupation(self._spec.models["actor"], seats["actor"].layout, apart)
        return Job(self.generator, "actor", "sync_weights", asked.seconds, asked.ranks)

    def _seat(self, place: int) -> Seat:
        call = self._flow[place]
        generates = call.work is Work.generate and call.role == "actor"
        return self._arrangement.seats[self._arrangement.generator if generates else call.role]

    def _jobs(self, places: Sequence[int], lengths: Lengths) -> list[Job]:
        number = {place: at for at, place in enumerate(places)}
        jobs = []
        for place in places:
            call = self._flow[place]
            asked = self._occupation(place, lengths)
            after = tuple(number[before] for before in call.after if before in number)
            jobs.append(Job(self._seat(place).pool, call.role, call.method, asked.seconds, asked.ranks, after))
        return jobs

    def _occupation(self, place: int, lengths: Lengths) -> Occupation:
        """Return what a call takes of a step whose rows have these lengths."""
        call = self._flow[place]
        model = self._spec.models.get(call.role)
        layout = self._seat(place).layout
        if call.work is Work.generate and model is not None and self._by_steps:
            return self._simulators.generation(call, model, layout, self._spec, np.asarray(lengths).reshape(-1))
        return self._simulators.occupation(call, model, layout, self._spec, self._deviations(lengths))

    def _deviations(self, lengths: Lengths) -> float:
        """Return how far these rows' sum is from its expectation, in standard deviations, rounded to be asked again."""
        drawn = np.asarray(lengths, dtype=np.float64)
        expected = self._spec.response_tokens
        if not drawn.size or not expected.deviation:
            return 0.0
        away = (drawn.mean() - expected.mean) * sqrt(drawn.size) / expected.deviation
        return float(np.clip(round(away * 4) / 4, -MAX_DEVIATIONS, MAX_DEVIATIONS))
