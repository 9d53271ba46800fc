"""Workloads whose steps are predicted and measured, and the variants of placement and layout that each is run in."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridflow.config import compose
from hybridflow.config.schema import Config, TaskConfig
from hybridflow.models import ModelShape
from hybridflow.models.model_shape import shape_of
from hybridflow.tasks.addition import ALPHABET

PLUGINS = ("benchmarks.fixed_prompts",)
PRINTABLE = string.digits + string.ascii_letters + "+-*/=()[]{}<>.,:;!?'_ "


@dataclass(frozen=True)
class Model:
    """Random Qwen2, a token a character.

    Attributes:
        algorithm: that its workloads run.
        longest: sequence, of all its workloads.
        alphabet: with the end and padding its vocabulary; a random model ends a response with one of the tokens.
    """

    name: str
    algorithm: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    alphabet: str
    longest: int

    def write(self, folder: Path) -> Path:
        """Write its folder."""
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from hybridflow.cli.model import write_model
        from hybridflow.tasks.tokenizer import char_tokenizer

        tokenizer = char_tokenizer(self.alphabet, max_tokens=self.longest)
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        torch.manual_seed(0)
        write_model(folder, Qwen2ForCausalLM(Qwen2Config(**self._sizes, **ends, dtype=torch.float32)), tokenizer)
        return folder

    @property
    def shape(self) -> ModelShape:
        """Return what its folder says."""
        return shape_of({**self._sizes, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})

    @property
    def _sizes(self) -> dict[str, Any]:
        return {
            "vocab_size": len(self.alphabet) + 2,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.longest,
            "tie_word_embeddings": False,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        }


@dataclass(frozen=True)
class Workload:
    """What a step computes: a model, and how much it reads and writes."""

    name: str
    model: Model
    prompt_tokens: int
    max_response_tokens: int
    prompts: int
    samples: int


@dataclass(frozen=True)
class Variant:
    """Placement and layouts.

    Attributes:
        settings: overrides that need a start of their own.
        micro_tokens: of a micro-batch, `max_tokens_per_rank`.
    """

    name: str
    settings: tuple[str, ...]
    micro_tokens: int = 8192


@dataclass(frozen=True)
class Start:
    """Processes that several variants and workloads take turns on."""

    model: Model
    settings: tuple[str, ...]
    variants: tuple[Variant, ...]


ADDITION = Model("addition", "ppo", 2, 128, 384, 4, 2, ALPHABET, 96)
WIDE = Model("wide", "grpo", 6, 256, 768, 8, 4, PRINTABLE, 128)
MODELS = (ADDITION, WIDE)

WORKLOADS = (
    Workload("addition, short", ADDITION, 6, 8, 32, 4),
    Workload("addition, long prompts", ADDITION, 64, 8, 32, 4),
    Workload("addition, long responses", ADDITION, 8, 48, 16, 8),
    Workload("wide, short", WIDE, 16, 16, 8, 8),
    Workload("wide, long prompts", WIDE, 96, 8, 8, 4),
    Workload("wide, long responses", WIDE, 12, 64, 8, 4),
)


def _colocated(ranks: int, tensor: int = 1, pipeline: int = 1, generation: int = 1) -> tuple[str, ...]:
    return (
        "placement=colocated",
        f"placement.pools.main={ranks}",
        f"actor.parallel.tensor={tensor}",
        f"actor.parallel.pipeline={pipeline}",
        f"rollout.parallel.tensor={generation}",
    )


def _apart(train: int, rollout: int, tensor: int = 1) -> tuple[str, ...]:
    return (
        "placement=rollout_pool",
        f"placement.pools.train={train}",
        f"placement.pools.rollout={rollout}",
        f"actor.parallel.tensor={tensor}",
    )


SPLIT = ("placement=split", "placement.pools.policy=1", "placement.pools.judges=1", "actor.parallel.tensor=1")
SMALL_MICRO = 256
"""Tokens of a small micro-batch; whatever a step has fits the usual one."""


def variants_of(model: Model) -> Iterator[Variant]:
    """Yield at least six placements and layouts, of one to four ranks."""
    yield Variant("1 rank", _colocated(1))
    yield Variant("1 rank, small micro-batches", _colocated(1), SMALL_MICRO)
    yield Variant("data 2", _colocated(2))
    yield Variant("data 2, small micro-batches", _colocated(2), SMALL_MICRO)
    yield Variant("tensor 2, generates at 1", _colocated(2, tensor=2))
    yield Variant("tensor 2, generates at 2", _colocated(2, tensor=2, generation=2))
    yield Variant("pipeline 2", _colocated(2, pipeline=2))
    yield Variant("rollout apart, 1 + 1", _apart(1, 1))
    if model.algorithm == "ppo":
        yield Variant("split, 1 + 1", SPLIT)
        yield Variant("tensor 2 x data 2, generates at 1", _colocated(4, tensor=2))
    else:
        yield Variant("data 4", _colocated(4))
        yield Variant("rollout apart, 2 + 2", _apart(2, 2, tensor=2))


def starts(models: tuple[Model, ...] = MODELS) -> Iterator[Start]:
    """Yield what has to be started so that all is measured."""
    for model in models:
        variants = tuple(variants_of(model))
        for settings in dict.fromkeys(variant.settings for variant in variants):
            yield Start(model, settings, tuple(v for v in variants if v.settings == settings))


def config_of(workload: Workload, variant: Variant, folder: Path) -> Config:
    """Compose the settings of a run; `folder`: its model's."""
    model = workload.model
    fixed = [
        "experiment=addition",
        f"algorithm={model.algorithm}",
        "run.name=prediction",
        f"actor.model.path={folder}",
        f"plugins=[{','.join(PLUGINS)}]",
        f"algorithm.prompts_per_step={workload.prompts}",
        f"algorithm.samples_per_prompt={workload.samples}",
        "algorithm.minibatches=2",
        f"rollout.max_response_tokens={workload.max_response_tokens}",
        f"rollout.max_sequence_tokens={model.longest}",
        "rollout.max_concurrent_rows=256",
        *(f"{role}.max_tokens_per_rank={variant.micro_tokens}" for role in ("actor", "critic", "reference")),
        *(["algorithm.critic_warmup_steps=0"] if model.algorithm == "ppo" else []),
    ]
    config = compose.compose("train", [*fixed, *variant.settings]).to_config()
    options: dict[str, Any] = {"prompt_tokens": workload.prompt_tokens}
    return replace(config, task=TaskConfig(name="fixed_prompts", options=options))
