"""What does a call cost, and which bytes does it move? `python -m benchmarks.dispatch --json dispatch.json`

Claims, on light ranks (no engine), each against plain Ray in the same run, the two taking turns:

* `noop_ratio`: a call on 8 ranks with nothing to do / `ray.get([a.noop.remote(blob) for a in actors])` on 8 plain
  actors; the blob has the bytes of our call's own message. `noop_ratio_no_argument`: the same without the blob.
* `chain_ratio`: ragged rows (64 MiB, 64 KiB) of a group of 2 go to a group of 3, which adds 1, and back to the 2, which
  add up each row / the best that we can write by hand: references and ranges of rows passed straight from producer to
  consumer, zero-copy reads, one copy where a rank's rows straddle two producers. In both the driver ends up with what a
  `BatchRef` is: references to the rows, and how long each of them is. `…_blind`: both drivers wait for the rows alone,
  though our ranks still report on them; `…_known_or_blind`: what knowing the lengths costs plain Ray; `…_drained`: our
  driver also takes in what the ranks report of the way there, seconds and metrics, as a trainer does once a step.
* `driver_tensor_bytes`: what the driver deserializes in 20 steps of the addition PPO (see `driver_bytes`).
* `pull_amplification`: bytes moved / bytes wanted, on one node and on two (see `pulls`).
* `balance`: the heaviest part's tokens / the mean, by `dp_tokens`: 512 rows of log-normal lengths (mu 5, sigma 1, at
  most 4,096 tokens) over 8 replicas, the mean over 20 seeds. `balance_by_count`: by `3d_proto`.
* `call_cost_us`, `plain_cost_us`: a call on 2 to 128 ranks, a plain fan-out without arguments on the same processes,
  and the slope of each by the rank; `…_driver_cpu_us`: CPU time of the driver, Ray's threads included, for the same.
  `simulated_10240`: the driver's own part at 10,240 ranks, with everything but Ray's transport real; `ray_share`: what
  the plain slope would be of the two together.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from benchmarks import dispatch_bytes, dispatch_calls

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "noop": dispatch_calls.noop,
    "chain": dispatch_calls.chain,
    "cost": dispatch_calls.cost,
    "simulated": dispatch_calls.simulated,
    "driver_bytes": dispatch_bytes.driver,
    "pulls": dispatch_bytes.pulls,
    "balance": dispatch_bytes.balance,
}


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "ray": ray.__version__}
    for name in options.only:
        print(f"{name} …", flush=True)
        found = PARTS[name]()
        print(json.dumps(found, indent=1), flush=True)
        result |= found
    if {"cost", "simulated"} <= set(options.only):
        result["ray_share"] = dispatch_calls.ray_share(result)
        print(json.dumps({"ray_share": result["ray_share"]}), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
