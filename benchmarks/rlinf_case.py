"""Does the search cost no more than RLinf's auto-placement, by RLinf's measure? `python -m benchmarks.rlinf_case`

RLinf's own test case (`benchmarks/data/rlinf_case.yaml`): three components of GRPO on 128 GPUs, profiled colocated, a
formula for what they take on fewer, and the placement that its tool returns. The branch and bound of
`hybridflow.planning.search` gets the same costs. `ours_s` is at most `theirs_s`; `ours` says on how many GPUs each
component is.

RLinf's tool asks for no model, and does not look at memory. `memory_gib` says of its placement what each component
needs on its fullest GPU, by our account, with the models of RLinf's examples: whether it `fits`. `ours_that_fits` is
what the search finds among what does; null where a replica has too few GPUs for the model, however many there are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

import numpy as np
import yaml

from benchmarks.published_rows import DATA
from hybridflow.config.schema import DType, Recompute
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.search.allocation import best_allocation
from hybridflow.planning.search.set_options import SetOptions
from hybridflow.planning.search.simulated_costs import SimulatedCosts
from hybridflow.planning.search.step_costs import Plan
from hybridflow.planning.search.step_shape import StepShape

CASE = DATA / "rlinf_case.yaml"
FULL_PLACES = 0.9  # of an engine's places that RLinf counts on, where there are as many as this
MANY_PLACES = 128
ROLES = {"rollout": "rollout", "inference": "reference", "actor": "actor"}  # ours, of its components


@dataclass(frozen=True)
class GroupPipeline(StepShape):
    """Step of components on devices of their own, through which groups of rows pass one after the other.

    Attributes:
        groups: of a step.
    """

    groups: int = 1

    def seconds(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        each = [part[..., 0] / self.groups for part in parts]
        total, slowest = each[0], each[0]
        for one in each[1:]:
            total = total + one
            slowest = np.maximum(slowest, one)
        return np.asarray(total + (self.groups - 1) * slowest)


@cache
def case() -> dict[str, Any]:
    """Read the case."""
    loaded: dict[str, Any] = yaml.safe_load(CASE.read_text("utf-8"))
    return loaded


def component_s(component: dict[str, Any], devices: int) -> float | None:
    """Return what a component takes on so many devices, as RLinf reckons; None where it has no such size."""
    said = case()
    name, whole = component["name"], component["seconds"]
    replicas, over = divmod(devices, component["ranks"])
    if over or not replicas:
        return None
    times = said["devices"] / devices
    if name == "rollout":
        many = said["rows_of_an_engine"] >= MANY_PLACES
        places = ceil(said["rows_of_an_engine"] * (FULL_PLACES if many else 1))
        holds = replicas * places >= said["groups"] * said["group_rows"]
        return float(whole if holds else whole * times)
    rows = said["groups"] * said["group_rows"] // said["updates"]
    if rows % (replicas * said["group_rows"]):
        return None
    return float(whole if times == 1 else whole * times / (1 + min(0.9, max(times / 10, 0.1))))


def options(component: dict[str, Any], devices: int) -> SetOptions:
    """List what a component takes on each number of devices."""
    known = [(count, component_s(component, count)) for count in range(1, devices + 1)]
    ways = [(count, seconds) for count, seconds in known if seconds is not None]
    counts, seconds = (np.array(column) for column in zip(*ways, strict=True))
    return SetOptions(counts, seconds[:, None], [{} for _ in ways])


def apart_shape() -> GroupPipeline:
    """Return the shape of a step whose components have devices of their own."""
    calls = tuple(
        FlowCall(component["name"], component["name"], Work.rows, True, 1, (place - 1,) if place else ())
        for place, component in enumerate(case()["components"])
    )
    return GroupPipeline(calls, tuple(range(len(calls))), groups=case()["groups"])


def colocated_s() -> float:
    """Return the seconds of a step whose components share all devices."""
    return float(sum(component["seconds"] for component in case()["components"]))


def answer_s(placed: dict[str, int]) -> float:
    """Return the seconds of a step on devices of each component's own."""
    parts = [np.array([component_s(component, placed[component["name"]])]) for component in case()["components"]]
    return float(apart_shape().seconds(parts))


def ours(model: str = "") -> tuple[float, dict[str, int]] | None:
    """Return the best that the search finds, and the devices of each component; of none: they share all.

    Args:
        model: whose memory is looked at; None is returned if no component's devices hold it. Empty: nothing is.
    """
    components = case()["components"]
    ways = [options(component, case()["devices"]) for component in components]
    if model:
        ways = [_that_fit(component, one, model) for component, one in zip(components, ways, strict=True)]
    made = best_allocation(apart_shape(), ways, case()["devices"], below=colocated_s())
    if made is None:
        return None if model else (colocated_s(), {})
    chosen = zip(components, ways, made.ways, strict=True)
    return made.seconds, {component["name"]: int(one.devices[way]) for component, one, way in chosen}


def _that_fit(component: dict[str, Any], ways: SetOptions, model: str) -> SetOptions:
    """Return the ways whose devices hold a component's model."""
    name = component["name"]
    device = read_hardware(case()["hardware"]).memory_bytes / 2**30
    fits = np.array([memory(model, {name: int(count)})[name] <= device for count in ways.devices], bool)
    return SetOptions(ways.devices[fits], ways.seconds[fits], [{} for _ in range(int(fits.sum()))])


def memory(model: str, placed: dict[str, int]) -> dict[str, float]:
    """Return the GiB that components need on their fullest device."""
    spec, costs = _costs(model)
    needs = {}
    for component in case()["components"]:
        name, ranks = component["name"], component["ranks"]
        if name not in placed:
            continue
        layout = Layout(tensor=ranks, data=placed[name] // ranks)
        role = ROLES[name]
        calls = [call for call in spec.flow if call.role == ("actor" if role == "rollout" else role)]
        recompute = Recompute.full if role == "actor" else Recompute.none
        mine = [call for call in calls if (call.work is Work.generate) == (role == "rollout")]
        need = costs.need(role, mine, Plan(layout, recompute, case()["sequence_tokens"]))
        needs[name] = round((need.held + need.peak) / 2**30, 1)
    return needs


@cache
def _costs(model: str) -> tuple[RunSpec, SimulatedCosts]:
    spec = _spec(model)
    return spec, SimulatedCosts(spec, read_hardware(case()["hardware"]))


def _spec(model: str) -> RunSpec:
    said = case()
    shape = ModelShape(
        family="qwen2",
        head_dim=128,
        tied=False,
        qkv_bias=True,
        norm_eps=1e-6,
        rope_theta=1e4,
        max_positions=131072,
        **said["models"][model],
    )
    rows, tokens = said["groups"] * said["group_rows"], said["sequence_tokens"]
    roles = {
        role: RoleModel(shape, DType.bfloat16, role == "actor", True, max_tokens_per_rank=tokens, sequence=True)
        for role in ("actor", "reference")
    }
    flow = (
        FlowCall("actor", "generate_sequences", Work.generate, True, rows),
        FlowCall("reference", "compute_ref_log_prob", Work.score, True, rows, (0,)),
        FlowCall("actor", "update_actor", Work.train, False, rows // said["updates"], (1,)),
    )
    return RunSpec(
        flow=flow,
        models=roles,
        prompts=said["groups"],
        samples=said["group_rows"],
        prompt_tokens=Lengths((1024.0,)),
        response_tokens=Lengths((tokens - 1024.0,)),
        max_response_tokens=tokens - 1024,
        schedule="sync",
        schedule_changes={},
        max_concurrent_rows=said["rows_of_an_engine"],
        memory_fraction=said["memory_fraction"],
    )


def replayed() -> dict[str, Any]:
    """Return what is found."""
    answer = case()["answer"]
    made = ours()
    assert made is not None  # colocated, if nothing else
    seconds, placed = made
    device = read_hardware(case()["hardware"]).memory_bytes / 2**30
    by_model = {model: memory(model, answer) for model in case()["models"]}
    return {
        "theirs": answer,
        "theirs_s": round(answer_s(answer), 2),
        "ours": placed,
        "ours_s": round(seconds, 2),
        "colocated_s": colocated_s(),
        "memory_gib": by_model,
        "device_gib": round(device, 1),
        "ours_that_fits": {model: found and found[1] for model in by_model for found in [ours(model)]},
        "fits": {model: max(needs.values()) <= device for model, needs in by_model.items()},
        "holds": seconds <= answer_s(answer) * (1 + 1e-9),
    }


def main() -> int:
    """Replay the case; return 0 if ours costs no more."""
    found = replayed()
    print(json.dumps(found, indent=1))
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
