"""What vLLM 0.32 does not take, known before it is started. Pure: it imports neither vLLM nor torch."""

from __future__ import annotations

HEAD_DIMS_ON_CPU = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of its attention there


def refuse_head_dim(head_dim: int, device: str) -> None:
    """Raise ValueError for a size of heads that vLLM's attention has no kernel for; `device` is "cpu" or "cuda"."""
    if device == "cpu" and head_dim not in HEAD_DIMS_ON_CPU:
        raise ValueError(
            f"heads of {head_dim} numbers: vLLM's attention on a CPU takes {', '.join(map(str, HEAD_DIMS_ON_CPU))}; "
            "take a model with such heads, or generate on GPUs"
        )
