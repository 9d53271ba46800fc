"""vLLM as a generation engine that settings can name. Light: vLLM is imported when an engine is built."""

from __future__ import annotations

from collections.abc import Sequence

from hybridflow.config.schema import ModelConfig, RolloutConfig
from hybridflow.engines.base import GenerationBackend, GenerationEngine, generation_engines
from hybridflow.engines.vllm.sharding import VllmSharding
from hybridflow.models import ModelShape
from hybridflow.parallel.layout import Layout

HEAD_DIMS_ON_CPU = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of its attention there


@generation_engines.register("vllm")
class VllmBackend(GenerationBackend):
    """vLLM 0.32 with tensor and pipeline parallelism, in the ranks' own processes."""

    renews = True

    @classmethod
    def sharding(cls, shape: ModelShape, layout: Layout) -> VllmSharding:
        """Give every replica the same shards."""
        return VllmSharding(shape, *layout.generation_sizes)

    @classmethod
    def refuse(cls, shape: ModelShape, device: str) -> None:
        """Refuse sizes of heads that its attention has no kernel for."""
        if device == "cpu" and shape.head_dim not in HEAD_DIMS_ON_CPU:
            raise ValueError(
                f"heads of {shape.head_dim} numbers: vLLM's attention on a CPU takes "
                f"{', '.join(map(str, HEAD_DIMS_ON_CPU))}; take a model with such heads, or generate on GPUs"
            )

    @classmethod
    def build(
        cls, model: ModelConfig, layout: Layout, rollout: RolloutConfig, *, seed: int, stop_ids: Sequence[int]
    ) -> GenerationEngine:
        """Start vLLM; of its folder it reads the configuration and the tokenizer."""
        from hybridflow.engines.vllm.engine import VllmEngine

        own_seed = seed % 2**32  # numpy's old generator bounds it; rows have seeds of their own
        return VllmEngine(model.path, layout, rollout, dtype=model.dtype.value, seed=own_seed, stop_ids=stop_ids)
