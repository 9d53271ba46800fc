"""What a rank takes besides its models: the number that a run adds for each slot when it looks whether it will fit.

    python -m benchmarks.process_bytes --json process_bytes.json

Claim: `host_needs.PROCESS_BYTES` is what a rank with both engines takes at its peak in steps of PPO on addition's
model, whose weights and caches are small, and `LIGHT_BYTES` what one takes that grades in a pool of its own, with the
process that its graders run in; to within a quarter. It is measured as the kernel counts it: the proportional set size
of a process (`Pss` of /proc/PID/smaps_rollup: private pages, and its share of those that it has in common with others),
of ranks with engines less what the estimate says of models and caches.
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
from typing import Any

from hybridflow.cli import model
from hybridflow.planning.host_needs import LIGHT_BYTES, PROCESS_BYTES

SLOTS = 2
LIGHT_SLOTS = 1
SETTINGS = (
    "experiment=addition", f"placement.pools.main={SLOTS}", f"+placement.pools.judges={LIGHT_SLOTS}",
    "+placement.roles.reward=judges", "trainer.steps=4", "trainer.validation_prompts=64",
    "trainer.stop_at_accuracy=null", "rollout.kv_cache_gib=0.05", "algorithm.critic_warmup_steps=0",
    "algorithm.policy_loss.entropy_coef=0.01",
)  # fmt: skip
MODELS_GIB = 0.05  # a rank's cache; of 0.4 million weights and their updates 0.006 are left
LOOK_EVERY_S = 0.25
WITHIN = 0.25
TITLE = b"ray::Rank"
TORCH = b"libtorch"


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


def has_torch(pid: int) -> bool:
    """Tell whether a process has loaded torch."""
    with suppress(OSError):
        return TORCH in Path(f"/proc/{pid}/maps").read_bytes()
    return False


def peaks(process: subprocess.Popen[bytes]) -> tuple[list[int], list[int]]:
    """Return the most bytes of each rank with torch until a run has ended, and of each without, its children's too."""
    most: dict[int, int] = {}
    heavy: set[int] = set()
    while process.poll() is None:
        for pid in filter(is_rank, descendants(process.pid)):
            heavy |= {pid} if pid not in heavy and has_torch(pid) else set()
            size = proportional_bytes(pid) + sum(map(proportional_bytes, () if pid in heavy else descendants(pid)))
            most[pid] = max(most.get(pid, 0), size)
        time.sleep(LOOK_EVERY_S)
    return [most[pid] for pid in most if pid in heavy], [most[pid] for pid in most if pid not in heavy]


def compared(sizes: list[int], told: float) -> dict[str, Any]:
    """Return how the largest of these sizes, in bytes, is to what is told of all."""
    share = max(sizes) / told
    gib = [round(size / 2**30, 3) for size in sizes]
    return {"gib_of_ranks": gib, "estimated_gib": round(told / 2**30, 3), "share": round(share, 3)}


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
        heavy, light = peaks(process)
    assert (process.returncode, len(heavy), len(light)) == (0, SLOTS, LIGHT_SLOTS), (process.returncode, heavy, light)
    own = [size - int(MODELS_GIB * 2**30) for size in heavy]
    found = {"with_engines": compared(own, PROCESS_BYTES), "light": compared(light, LIGHT_BYTES)}
    result = {"pass": all(abs(one["share"] - 1) <= WITHIN for one in found.values()), **found}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
