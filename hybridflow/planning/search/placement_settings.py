"""Settings of a placement that was found, as a file that `hybridflow train placement=FILE` takes."""

from __future__ import annotations

from typing import Any

import yaml

from hybridflow.planning.search.device_mapping import MappedRun
from hybridflow.planning.search.step_costs import ACTOR, ROLLOUT

HEAD = """\
# @package _global_
# {what}
# Take it with placement=PATH, or as an option of the group placement in a folder of yours (-cd FOLDER).
"""
PACED = {"max_staleness": None, "partial": None, "sampler": "", "spare_prompts": 0, "stopped": "next_step"}
"""What settings may change of one schedule, as another schedule wants it: left as it is."""


def settings_of(run: MappedRun, schedule: str) -> dict[str, Any]:
    """Return the settings of a placement.

    Args:
        schedule: of the settings that it is for; what they change of it stays only if it is the same.
    """
    where = run.arrangement
    seats = {role: seat.pool for role, seat in where.seats.items()}
    if where.generator == ACTOR and ACTOR in seats:
        seats[ROLLOUT] = seats[ACTOR]
    settings: dict[str, Any] = {
        "placement": {"pools": dict(where.pools), "roles": seats, "lend_idle_slots": False},
        "trainer": {"schedule": run.schedule, **(PACED if run.schedule != schedule else {})},
    }
    for role, model in run.spec.models.items():
        layout = where.seats[role].layout
        settings[role] = {
            "parallel": {"tensor": layout.tensor, "pipeline": layout.pipeline},
            "max_tokens_per_rank": model.max_tokens_per_rank,
            "recompute": model.recompute.value,
        }
    if where.generator in where.seats:
        tensor, pipeline = where.seats[where.generator].layout.generation_sizes
        settings[ROLLOUT] = {
            "parallel": {"tensor": tensor, "pipeline": pipeline},
            "gpu_memory_fraction": run.spec.memory_fraction,
        }
    return settings


def written(run: MappedRun, schedule: str, what: str) -> str:
    """Write a placement file.

    Args:
        schedule: see `settings_of`.
        what: a line for people.
    """
    return HEAD.format(what=what) + yaml.safe_dump(settings_of(run, schedule), sort_keys=False, width=120)
