"""Small float32 products of vLLM's layers on a CPU, left to torch.

vLLM 0.32 multiplies with weights that oneDNN has packed. oneDNN compiles each product for each number of rows that it
meets: some 2 ms and half a MiB of memory, which it keeps for the last 1,024 of them, while rows end at any step and
prompts have any number of tokens. Where weights are large that pays; where they are small, torch's product takes no
longer, compiles nothing and keeps nothing, and a weight that is not packed is written in place.

Patch: `vllm._custom_ops.create_onednn_mm` (vLLM 0.32), which vLLM does without where it raises RuntimeError. It goes
away when a product of oneDNN's serves any number of rows.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

SMALL = 2**18  # numbers of a weight


def leave_to_torch() -> None:
    """Replace the function in this process; a second call changes nothing."""
    from vllm import _custom_ops

    if not hasattr(_custom_ops.create_onednn_mm, "__wrapped__"):
        _custom_ops.create_onednn_mm = _for_large(_custom_ops.create_onednn_mm)


def _for_large(pack: Any) -> Any:
    @functools.wraps(pack)
    def packed(weight: Tensor, *options: Any) -> Any:
        if weight.dtype is torch.float32 and weight.numel() <= SMALL:
            raise RuntimeError("a small float32 weight is not packed: torch multiplies with it as it is")
        return pack(weight, *options)

    return packed
