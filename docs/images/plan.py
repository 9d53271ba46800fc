"""Draws plan.svg and plan_pools.svg, two plans of docs/placement.md: `python docs/images/plan.py` writes them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hybridflow.cli import main
from tests.docs.blocks import write_files

PAGE = "docs/placement.md"
HERE = Path(__file__).parent
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "max_position_embeddings": 131072,
}
COMMON = ("-cd", "my_configs", "experiment=sums_8b", "hardware=h100_80g_8x")
POOLS = ("placement=rollout_pool", "placement.pools.train=16", "placement.pools.rollout=8", "trainer.schedule=async")
PLANS = {
    "plan": (*COMMON, "placement.pools.main=16"),
    "plan_pools": (*COMMON, *POOLS),
}


def prepare(folder: Path) -> None:
    """Write what the page's commands need: its files, and a model's sizes."""
    write_files(PAGE, folder)
    model = folder / "models/llama-3.1-8b"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(LLAMA_8B))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        os.chdir(name)
        for picture, arguments in PLANS.items():
            main(["plan", *arguments, "--svg", str(HERE.resolve() / f"{picture}.svg"), "--force"])
