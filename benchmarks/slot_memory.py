"""Memory of slots, as `hybridflow plan` says and as ranks have it. `python -m benchmarks.slot_memory --json FILE`

Claim: the most bytes of tensors that a rank of a run on CPUs has at once are predicted within 15 %, and of the model of
`addition`, which is small, within 15 % or 32 MiB, whichever is more; for four placements and layouts of each model.

Every run takes two steps, with `benchmarks.measured_ranks` as a plugin. Predictions know the lengths of the rows that
were learned from, which no settings say; all else is of the settings. `--only NAME` makes some of the runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measured_ranks import FOLDER
from benchmarks.short_runs import ShortRuns
from hybridflow import preflight
from hybridflow.algorithms import algorithms
from hybridflow.cli import model
from hybridflow.placement import resolve
from hybridflow.planning.arrangement import arrangement_of
from hybridflow.planning.estimates import SlotMemory
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import SYNC
from hybridflow.planning.slot_memory import slot_memory
from hybridflow.planning.spec_of_config import spec_of
from tests.forked_ranks import fork_server

MIB = 2**20
SYNCS = ("actor.sync_weights", "actor.send_weights", "rollout.receive_weights")
WITHIN = 0.15
LITTLE = 32 * MIB
COMMON = (
    "plugins=[benchmarks.measured_ranks]", "placement.device=cpu", "trainer.steps=2", "trainer.validate_every=0",
    "trainer.validation_prompts=8", "trainer.stop_at_accuracy=null", "trainer.log_rollouts_every=0",
    "algorithm.policy_loss.entropy_coef=0.01",
)  # fmt: skip
ADDITION = (
    "experiment=addition", "algorithm.prompts_per_step=128", "algorithm.samples_per_prompt=8",
    "rollout.kv_cache_gib=0.05",
)  # fmt: skip
SMOLLM2 = (
    "experiment=smollm2", "algorithm.prompts_per_step=4", "algorithm.samples_per_prompt=2",
    "rollout.max_response_tokens=64", "rollout.kv_cache_gib=0.1", "rollout.max_concurrent_rows=8",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Run that is measured.

    Attributes:
        model: the name that `hybridflow model` makes it by.
    """

    name: str
    model: str
    settings: tuple[str, ...]

    def overrides(self, models: Path) -> list[str]:
        """Return the settings, with models below a folder."""
        common = ADDITION if self.model == "addition" else SMOLLM2
        return [*COMMON, *common, *self.settings, f"actor.model.path={models / self.model}"]


CASES = (
    Case("addition_tensor", "addition", (
        "placement.pools={main: 2}", "actor.parallel.tensor=2", "critic.parallel.tensor=1",
        "actor.max_tokens_per_rank=8192", "critic.max_tokens_per_rank=4096", "algorithm.critic_warmup_steps=0",
    )),
    Case("addition_stages", "addition", (
        "algorithm=grpo", "placement.pools={main: 2}", "actor.parallel={tensor: 1, pipeline: 2}",
        "actor.max_tokens_per_rank=6144", "rollout.parallel={tensor: 1, pipeline: 2}",
    )),
    Case("addition_sequence", "addition", (
        "algorithm=grpo", "placement.pools={main: 4}", "actor.parallel={tensor: 2, sequence: true}",
        "actor.optimizer.distributed=true", "actor.recompute=selective", "actor.max_tokens_per_rank=8192",
    )),
    Case("addition_apart", "addition", (
        "algorithm=grpo", "placement.pools={main: 1, rollout: 1}", "placement.roles={rollout: rollout}",
        "actor.parallel.tensor=1", "actor.recompute=full", "actor.max_tokens_per_rank=8192",
    )),
    Case("smollm2_data", "smollm2", (
        "placement.pools={main: 2}", "actor.optimizer.distributed=true", "actor.max_tokens_per_rank=512",
    )),
    Case("smollm2_stages", "smollm2", (
        "placement.pools={main: 2}", "actor.parallel.pipeline=2", "actor.model.dtype=float32",
        "actor.recompute=full", "actor.max_tokens_per_rank=512",
    )),
    Case("smollm2_tensor", "smollm2", (
        "placement.pools={main: 3}", "actor.parallel={tensor: 3, sequence: true}", "actor.max_tokens_per_rank=512",
    )),
    Case("smollm2_apart", "smollm2", (
        "placement.pools={main: 1, rollout: 1}", "placement.roles={rollout: rollout}", "actor.model.dtype=float32",
        "actor.recompute=selective", "actor.max_tokens_per_rank=256",
    )),
)  # fmt: skip


def measured(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what the ranks of a run wrote, by ROLE-RANK."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / FOLDER).glob("*.json"))}


def predicted(overrides: list[str], found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, SlotMemory]:
    """Return by the first role of a pool its slot's memory, for rows of the lengths that were found."""
    config = preflight.load("train", overrides)
    called = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
    calls = [call for rank in found.values() for name, call in rank.items() if name == "actor.update_actor"]
    lengths = {
        name: Lengths.of([length for call in calls for length in call[name]]) for name in ("prompt_ids", "response_ids")
    }
    spec = spec_of(config, prompt_tokens=lengths["prompt_ids"], response_tokens=lengths["response_ids"])
    arrangement = arrangement_of(resolve(config, called))
    pools = {slot.pool: slot for slot in slot_memory(spec, arrangement, None)}
    return {role: pools[seat.pool] for role, seat in arrangement.seats.items()}


def compared(case: Case, models: Path, folder: Path) -> list[dict[str, Any]]:
    """Compare each pool's fullest rank with its prediction."""
    found = measured(folder)
    slots = predicted(case.overrides(models), found)
    rows = []
    for first in dict.fromkeys(name.rpartition("-")[0] for name in found):
        ranks = [calls for name, calls in found.items() if name.rpartition("-")[0] == first]
        slot = slots[first]
        peak = max(call["peak"] for calls in ranks for name, call in calls.items() if not name.endswith(".build"))
        rows.append({
            "case": case.name, "pool": slot.pool, "predicted_mib": slot.peak / MIB, "measured_mib": peak / MIB,
            "ratio": slot.peak / peak, "phases": dict(_phases(slot, ranks)),
            "held_mib": {what: size / MIB for what, size in slot.held.items()},
            "beside_mib": {name: {a: b / MIB for a, b in one.items()} for name, one in slot.phases.items()},
            "pass": abs(slot.peak - peak) <= max(WITHIN * peak, LITTLE if case.model == "addition" else 0),
        })  # fmt: skip
    return rows


def _phases(slot: SlotMemory, ranks: list[dict[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the phases of a pool's fullest slot with what was predicted, and the most that a rank had."""
    kept = sum(slot.held.values())
    for name, beside in slot.phases.items():
        calls = SYNCS if name == SYNC else (name, name.replace("actor.", "rollout."))
        peaks = [rank[call]["peak"] for rank in ranks for call in calls if call in rank]
        if peaks:
            yield name, {"predicted_mib": (kept + sum(beside.values())) / MIB, "measured_mib": max(peaks) / MIB}


def main() -> int:
    """Make the runs; return 0 if all are as claimed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="NAME")
    parser.add_argument("--forked", action="store_true", help="fork ranks from a process that has imported the engines")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    rows = []
    server = fork_server() if options.forked else nullcontext({})
    with tempfile.TemporaryDirectory(prefix="hybridflow-memory-") as place, server as forks:
        models = Path(place) / "models"
        for name in dict.fromkeys(case.model for case in cases):
            assert model.run([name, "--out", str(models / name)]) == 0
        runs = ShortRuns(Path(place), forks)
        for case in cases:
            rows += compared(case, models, runs.run("train", case.name, *case.overrides(models)))
    result = {"pass": all(row["pass"] for row in rows), "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(f"{row['case']:20} {row['pool']:8} predicted {row['predicted_mib']:8.0f} MiB, measured "
              f"{row['measured_mib']:8.0f}: {row['ratio']:.3f}{'' if row['pass'] else '  no'}")  # fmt: skip
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
