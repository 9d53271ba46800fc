"""What HybridFlow's paper found of placements comes out of the search, on its machines."""

from __future__ import annotations

import pytest

from benchmarks.paper_placements import Finding, findings, placements


@pytest.mark.parametrize(
    ("devices", "unit", "few_stages", "model"),
    [(128, 64, False, "34B"), (32, 16, True, "13B"), (128, 64, True, "13B")],
)
def test_roles_are_colocated_on_few_devices_and_apart_on_many(
    devices: int, unit: int, few_stages: bool, model: str
) -> None:
    finding = next(one for one in findings() if (one.actor, one.critic, one.devices) == (model, model, devices))
    best, *others = placements(finding, few_stages=few_stages, unit=unit, budgets=(0.5,))
    assert finding.fits(best.candidate.sets)
    assert sum(best.devices) <= devices
    assert any(not finding.fits(one.candidate.sets) for one in others)  # there was something else to take


def test_a_large_critic_is_apart_on_many_devices_where_pipelines_are_short() -> None:
    finding = next(one for one in findings() if (one.actor, one.critic, one.devices) == ("13B", "70B", 128))
    best, *others = placements(finding, few_stages=True, unit=32, budgets=(0.5,))
    assert not any({"actor", "critic"} <= {*one} for one in best.candidate.sets)
    named = next(one for one in [best, *others] if finding.fits(one.candidate.sets))
    assert named.seconds < 1.05 * best.seconds


def test_a_finding_names_a_kind_of_placement_or_its_sets() -> None:
    apart = Finding("7B", "7B", 96, "apart")
    assert apart.fits((("actor", "reference"), ("critic", "reward")))
    assert not apart.fits((("actor", "critic"), ("reference", "reward")))
    named = Finding("7B", "7B", 96, "apart", (("actor", "reward"), ("critic", "reference")))
    assert named.fits((("reference", "critic"), ("reward", "actor")))
    assert not named.fits((("actor", "reference"), ("critic", "reward")))
