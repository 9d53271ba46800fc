"""Megatron-core as a training engine that settings can name. Light: Megatron is imported when an engine is built."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridflow.config.schema import OptimizerConfig, TrainedRoleConfig
from hybridflow.engines.base import TrainingBackend, TrainingEngine, training_engines
from hybridflow.engines.megatron import saved_files, saved_index
from hybridflow.engines.megatron.sharding import MegatronSharding
from hybridflow.models import Head, ModelShape, Weight
from hybridflow.observe import logs
from hybridflow.parallel.layout import Layout
from hybridflow.quick_imports import absent, import_transformers

if TYPE_CHECKING:
    from torch import Tensor

    from hybridflow.parallel.process_groups import Groups

log = logging.getLogger(__name__)

WEIGHTS = "weights/"  # what the names of weights begin with, in the index of a checkpoint


@training_engines.register("megatron")
class MegatronBackend(TrainingBackend):
    """Megatron-core: tensor, sequence, pipeline and data parallelism, a distributed optimizer."""

    @classmethod
    def sharding(cls, shape: ModelShape, layout: Layout, *, head: Head = Head.lm) -> MegatronSharding:
        """Give every data parallel rank the same shards."""
        return MegatronSharding(shape, layout.tensor, layout.pipeline, head)

    @classmethod
    def build(
        cls,
        settings: TrainedRoleConfig,
        groups: Groups,
        *,
        head: Head = Head.lm,
        optimizer: OptimizerConfig | None = None,
        total_steps: int = 1,
        seed: int = 1,
    ) -> TrainingEngine:
        """Read this rank's slices of the model's folder."""
        import torch

        with logs.timed(log, "import of Megatron"), absent("wandb"):  # a second of computing, for its own training loop
            import_transformers()
            from hybridflow.engines.megatron.engine import MegatronEngine

        with logs.timed(log, f"Megatron's model of {settings.model.path}"):
            return MegatronEngine(
                settings.model.path,
                groups,
                dtype=getattr(torch, settings.model.dtype.value),
                budget=settings.max_tokens_per_rank,
                head=head,
                optimizer=optimizer,
                total_steps=total_steps,
                seed=seed,
                sequence=settings.parallel.sequence,
                recompute=settings.recompute,
            )

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        """Look at the index of the tensors, a pickle, without running what is in it, and at what is beside them."""
        saved_index.check(folder)
        saved_files.check(folder)

    @classmethod
    def saved_shapes(cls, folder: Path) -> Mapping[str, tuple[int, ...]]:
        """Read them in the index."""
        shapes = saved_index.check(folder)
        return {name.removeprefix(WEIGHTS): shape for name, shape in shapes.items() if name.startswith(WEIGHTS)}

    @classmethod
    def read_saved(cls, folder: Path, weights: Sequence[Weight]) -> Iterator[tuple[str, Tensor]]:
        """Yield them one by one."""
        from hybridflow.engines.megatron.saved_weights import read

        return read(folder, weights)
