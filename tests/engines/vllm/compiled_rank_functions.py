"""A rank whose vLLM is compiled, and the model's folder its one argument.

It is a program of its own: a process with an engine that is not compiled compiles nothing from then on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist
from safetensors.torch import load_file

from hybridflow.batch import Ragged
from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.parallel import host_address
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform

ROWS = 12


def start_world(meeting: Path) -> None:
    """A world of one rank, as vLLM reads it from the environment."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR=host_address.LOOPBACK)
    os.environ.update(host_address.ONE_MACHINE)
    platform().start(0)
    dist.init_process_group(platform().backend, init_method=f"file://{meeting}", rank=0, world_size=1)


def build(folder: Path, *, eager: bool) -> VllmEngine:
    sizes = {"max_sequence_tokens": 64, "max_concurrent_rows": 32, "kv_cache_gib": 0.1}
    return VllmEngine(
        folder, Layout(), RolloutConfig(**sizes, enforce_eager=eager), dtype="float32", seed=0, stop_ids=[0]
    )


def rows_of(engine: VllmEngine, temperature: float = 1.0) -> Generated:
    prompts = Ragged.of([np.arange(2, 5 + row % 7) for row in range(ROWS)])
    return engine.generate(prompts, Sampling(temperature, max_tokens=40), list(range(ROWS)))


def main(folder: Path) -> dict[str, object]:
    """What a compiled engine gives again, with other weights and the first ones, and one that is not compiled."""
    weights = load_file(folder / "model.safetensors")
    others = {name: weight * 1.01 for name, weight in weights.items()}
    start_world(folder / "meeting")
    compiled = build(folder, eager=False)
    bits, sampled = [], []
    for version, given in enumerate((weights, weights, others, weights)):
        compiled.update_weights(iter(given.items()), version)
        sampled.append(rows_of(compiled))
        bits.append(sampled[-1].log_probs.values.tobytes())
    likeliest = rows_of(compiled, 0.0)
    eager = build(folder, eager=True)
    eager.update_weights(iter(weights.items()), 0)
    expected = rows_of(eager)
    return {
        "repeats": bits[0] == bits[1] == bits[3],
        "heeds weights": bits[2] != bits[1],
        "tokens": sampled[0].tokens == expected.tokens and likeliest.tokens == rows_of(eager, 0.0).tokens,
        "apart": float(np.abs(sampled[0].log_probs.values - expected.log_probs.values).max()),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
    os._exit(0)
