"""The search for a placement beside all placements, and beside the bound of a mixed-integer program."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.planning.search.exhaustive import cheapest
from hybridflow.planning.search.placement_search import Candidate, PlacementSearch
from tests.planning.search.synthetic import PPO, SyntheticCosts

MODELS = ("actor", "reference", "critic", "reward")


def search_for(costs: SyntheticCosts, devices: int, models: tuple[str, ...] = MODELS) -> PlacementSearch:
    sizes = [1, 2, *range(4, devices + 1, 4)]
    return PlacementSearch(PPO, models, costs, devices, sizes)


CANDIDATES = tuple(search_for(SyntheticCosts(0), 8).candidates(overlaps=True))


def test_candidates_are_all_ways_to_colocate() -> None:
    together = [one for one in CANDIDATES if not one.apart]
    apart = [one for one in CANDIDATES if one.apart and not one.overlaps]
    assert len({*CANDIDATES}) == len(CANDIDATES)
    assert (len(together), len(apart)) == (15, 52 - 15)  # Bell's numbers of 4 and 5; actor and rollout are never one
    assert {one.sets for one in CANDIDATES if one.overlaps} == {one.sets for one in apart if ("rollout",) in one.sets}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CANDIDATES), st.sampled_from([4, 8]), st.sampled_from([4.0, 8.0]))
def test_nothing_is_cheaper_than_what_is_found(seed: int, candidate: Candidate, devices: int, weight: float) -> None:
    search = search_for(SyntheticCosts(seed, weight=weight), devices, ("actor", "critic", "reference"))
    sets = tuple(tuple(role for role in one if role != "reward") for one in candidate.sets)
    candidate = Candidate(tuple(one for one in sets if one), candidate.overlaps)
    found, truth = search.best(candidate), cheapest(search, candidate)
    assert (found is None) == (truth is None)
    if found is not None and truth is not None:
        assert found.seconds == pytest.approx(truth.seconds, rel=1e-12)
        assert search.bound(candidate) <= found.seconds * (1 + 1e-9)
