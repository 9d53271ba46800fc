"""A plugin: PPO that keeps what it sampled in files, and learns from these where they are there already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hybridflow.algorithms import algorithms
from hybridflow.algorithms.ppo import PPO
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.controller import put

NAME = "recorded_ppo"
FOLDER = "HYBRIDFLOW_TEST_RECORDED"  # names the folder of the files


@algorithms.register(NAME)
class RecordedPPO(PPO):
    """PPO on the same responses wherever it runs."""

    roles = PPO.roles
    heeds = PPO.heeds

    def generate(self, prompts: BatchRef, **sampling: Any) -> BatchRef:
        file = Path(os.environ[FOLDER]) / f"{self.step_index}.npz"
        if file.exists():
            return prompts.repeat(self.config.samples_per_prompt) | put(read(file))
        rollout = super().generate(prompts, **sampling)
        given = [name for name in rollout.columns if name not in (*prompts.columns, *rollout.driver_columns)]
        write(file, rollout.select_columns(given).get())
        return rollout


def write(file: Path, rows: Batch) -> None:
    """Keep the columns of rows bit by bit; those of their marks are none."""
    arrays: dict[str, Any] = {}
    for name in rows.columns:
        column = rows[name]
        if isinstance(column, Ragged):
            arrays |= {f"{name}.values": column.values, f"{name}.offsets": column.offsets}
        else:
            arrays[name] = np.array(column.tolist()) if column.dtype == object else column  # strings
    np.savez(file, **arrays)


def read(file: Path) -> Batch:
    """Read what `write` wrote."""
    arrays = dict(np.load(file, allow_pickle=False))
    ragged = {name.removesuffix(".values") for name in arrays if name.endswith(".values")}
    columns: dict[str, Any] = {name: Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"]) for name in ragged}
    return Batch(**columns, **{name: column for name, column in arrays.items() if "." not in name})
