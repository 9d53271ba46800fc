"""Does the search find what HybridFlow's paper found? `python -m benchmarks.paper_placements --json paper.json`

PPO on 16 to 128 A100: all four roles colocated are fastest up to 64 devices, the actor apart from the critic from 96
(`benchmarks/data/hybridflow_findings.yaml`). The search looks at all 15 ways to colocate the roles, with all plans of
each (`hybridflow.planning.search`), on the paper's machines; overheads are the usual ones of our hardware files.

`as_paper` says whether the best is of the kind that the paper names; `margin` by how much the best of that kind is
slower than the best of all. The paper does not give its layouts: `few_stages` is the same where the trained models have
8 tensor ranks, as few stages as let them fit, and data parallel ranks for the rest, so that more devices add up more
gradients.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks.published_rows import DATA
from hybridflow.config.schema import DType
from hybridflow.models import Head, ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.placement_search import Found, PlacementSearch
from hybridflow.planning.search.simulated_costs import BUDGETS, SimulatedCosts

FINDINGS = DATA / "hybridflow_findings.yaml"
UNIT = 16  # devices that sets have multiples of
TENSOR = 8
STAGES = {32: 1, 40: 1, 80: 2}  # by layers of 7B, 13B, 70B: as few as fit on 64 devices with the other roles

Sets = tuple[tuple[str, ...], ...]


class FewStagesCosts(SimulatedCosts):
    """Costs that know one way to train: over the tensor ranks of a machine, in few stages, and data parallel."""

    def cuts(self, role: str, devices: int) -> Sequence[Layout]:
        every = super().cuts(role, devices)
        model = self.spec.models[role]
        if not model.trains:
            return every
        stages = STAGES[model.shape.layers]
        return [layout for layout in every if (layout.tensor, layout.pipeline) == (TENSOR, stages)]


@dataclass(frozen=True)
class Finding:
    """What the paper says of models on a number of devices."""

    actor: str
    critic: str
    devices: int
    best: str
    sets: Sets = ()

    def fits(self, sets: Sets) -> bool:
        """Tell whether sets of roles are of the kind that was best."""
        if self.sets:
            return {*map(frozenset, sets)} == {*map(frozenset, self.sets)}
        together = any({"actor", "critic"} <= {*one} for one in sets)
        return len(sets) == 1 if self.best == "colocated" else not together


@cache
def paper() -> dict[str, Any]:
    """Read what the paper says."""
    loaded: dict[str, Any] = yaml.safe_load(FINDINGS.read_text("utf-8"))
    return loaded


def findings() -> list[Finding]:
    """Return what was found."""
    return [
        Finding(**{**found, "sets": tuple(tuple(one) for one in found.get("sets", ()))})
        for found in paper()["findings"]
    ]


def machines() -> Hardware:
    """Return the paper's machines."""
    said = paper()["machines"]
    hardware = read_hardware(said["hardware"])
    return replace(hardware, across=replace(hardware.across, bytes_per_s=float(said["across_bytes_per_s"])))


def ppo(actor: str, critic: str) -> RunSpec:
    """Return a step of PPO with the paper's workload."""
    work = paper()["workload"]
    rows, updates = work["rows"], work["updates"]
    flow = [
        FlowCall("actor", "generate_sequences", Work.generate, True, rows),
        FlowCall("critic", "compute_values", Work.score, True, rows, (0,)),
        FlowCall("reference", "compute_ref_log_prob", Work.score, True, rows, (0,)),
        FlowCall("reward", "compute_reward", Work.score, True, rows, (0,)),
    ]
    for _ in range(updates):
        for role in ("critic", "actor"):
            flow.append(FlowCall(role, f"update_{role}", Work.train, False, rows // updates, (1, 2, 3)))
    models = {
        "actor": _model(actor, Head.lm, trains=True),
        "critic": _model(critic, Head.value, trains=True),
        "reference": _model(actor, Head.lm, trains=False),
        "reward": _model(critic, Head.reward, trains=False),
    }
    return RunSpec(
        flow=tuple(flow),
        models=models,
        prompts=rows,
        samples=1,
        prompt_tokens=Lengths((work["prompt_tokens"],)),
        response_tokens=Lengths((work["response_tokens"],)),
        max_response_tokens=work["response_tokens"],
        schedule="sync",
        schedule_changes={},
        max_concurrent_rows=rows,
    )


def _model(name: str, head: Head, *, trains: bool) -> RoleModel:
    shape = ModelShape(
        family="llama",
        head_dim=128,
        vocab=32000,
        tied=False,
        qkv_bias=False,
        norm_eps=1e-5,
        rope_theta=1e4,
        max_positions=4096,
        **paper()["models"][name],
    )
    return RoleModel(shape, DType.bfloat16, trains, sharded_optimizer=True, sequence=True, head=head)


def placements(
    finding: Finding, *, few_stages: bool = False, unit: int = UNIT, budgets: Sequence[float] = BUDGETS
) -> list[Found]:
    """Return the best placement of every way to colocate the roles, the fastest first."""
    spec = ppo(finding.actor, finding.critic)
    costs = (FewStagesCosts if few_stages else SimulatedCosts)(spec, machines(), budgets)
    sizes = range(unit, finding.devices + 1, unit)
    search = PlacementSearch(spec.flow, tuple(spec.models), costs, finding.devices, sizes)
    found = [search.best(candidate) for candidate in search.candidates() if not candidate.apart]
    return sorted((one for one in found if one is not None), key=lambda one: one.seconds)


def case(finding: Finding, *, few_stages: bool = False) -> dict[str, Any]:
    """Search; return what `--json` says of a finding."""
    found = placements(finding, few_stages=few_stages)
    best = found[0]
    like = [one for one in found if finding.fits(one.candidate.sets)]
    return {
        "models": f"{finding.actor}, {finding.critic}",
        "devices": finding.devices,
        "few_stages": few_stages,
        "paper": finding.best,
        "best": [[*one] for one in best.candidate.sets],
        "devices_of": [*best.devices],
        "seconds": round(best.seconds, 1),
        "as_paper": finding.fits(best.candidate.sets),
        "margin": round(like[0].seconds / best.seconds - 1, 3) if like else None,
    }


def cases() -> list[dict[str, Any]]:
    """Search for all findings, and for those of a 13B policy again with few stages."""
    every = [case(finding) for finding in findings()]
    few = [finding for finding in findings() if finding.actor == "13B" and finding.devices > 16]
    return every + [case(finding, few_stages=True) for finding in few]


def line(found: dict[str, Any]) -> str:
    """Say a case in a line."""
    sets = " | ".join(
        f"{', '.join(roles)} ({devices})" for roles, devices in zip(found["best"], found["devices_of"], strict=True)
    )
    agrees = "as the paper" if found["as_paper"] else f"the paper: {found['paper']}, {found['margin']:+.1%} here"
    stage = ", few stages" if found["few_stages"] else ""
    return f"{found['models']} on {found['devices']}{stage}: {sets}, {found['seconds']} s; {agrees}"


def main() -> int:
    """Search for every finding; return 0 if all come out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = cases()
    print("\n".join(map(line, found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(one["as_paper"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
