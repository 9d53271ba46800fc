"""What a rank takes besides its models: the number that a run adds for each slot when it looks whether it will fit.

    python -m benchmarks.process_bytes --json process_bytes.json

Claim: `host_needs.PROCESS_BYTES` is what a rank with both engines takes at its peak in steps of PPO on addition's
model, whose weights and caches are small, to within a quarter. It is measured as the kernel counts it: the proportional
set size of each rank's process (`Pss` of /proc/PID/smaps_rollup: private pages, and its share of those that it has in
common with others), less what the estimate says of models and caches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hybridflow.cli import model
from hybridflow.planning.host_needs import PROCESS_BYTES

SLOTS = 2
SETTINGS = (
    "experiment=addition", f"placement.pools.main={SLOTS}", "trainer.steps=4", "trainer.validation_prompts=64",
    "trainer.stop_at_accuracy=null", "rollout.kv_cache_gib=0.05", "algorithm.critic_warmup_steps=0",
    "algorithm.policy_loss.entropy_coef=0.01",
)  # fmt: skip
MODELS_GIB = 0.05  # a rank's cache; of 0.4 million weights and their updates 0.006 are left
LOOK_EVERY_S = 0.25
WITHIN = 0.25
TITLE = b"ray::Rank"


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process has started, and those that they have."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size of a process; 0: it has ended."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return 0


def is_rank(pid: int) -> bool:
    """Tell whether a process is a rank, by the title that Ray gives it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(TITLE)
    return False


def peaks(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Return the most bytes of each rank until a run has ended."""
    most: dict[int, int] = {}
    while process.poll() is None:
        for pid in filter(is_rank, descendants(process.pid)):
            most[pid] = max(most.get(pid, 0), proportional_bytes(pid))
        time.sleep(LOOK_EVERY_S)
    return most


def main() -> int:
    """Make the run; return 0 if the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybridflow-bytes-") as folder:
        assert model.run(["addition", "--out", f"{folder}/models/addition"]) == 0
        started = f"actor.model.path={folder}/models/addition"
        command = [sys.executable, "-m", "hybridflow", "train", *SETTINGS, started]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        most = peaks(process)
    assert process.returncode == 0 and len(most) == SLOTS, (process.returncode, most)
    found = [round(size / 2**30 - MODELS_GIB, 3) for size in most.values()]
    told = round(PROCESS_BYTES / 2**30, 3)
    share = max(found) / told
    result = {"pass": abs(share - 1) <= WITHIN, "gib_of_ranks": found, "estimated_gib": told, "share": round(share, 3)}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
