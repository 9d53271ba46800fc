"""What a rank runs: layers packed by vLLM, and their columns read through it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.vllm import small_products
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.parallel import bf16
from hybridflow.parallel.layout import Layout
from tests.engines.vllm.corruptions import flipped


class Method:
    """Packing, where it packs, and product of vLLM's linear layers on a CPU."""

    def apply(self, layer: nn.Module, numbers: Tensor) -> Tensor:
        from vllm.model_executor.layers.utils import cpu_unquantized_gemm

        return cpu_unquantized_gemm(layer, numbers, layer.weight, None)


def packed(weight: Tensor) -> nn.Module:
    """A layer with that weight, packed as large ones are."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    layer = nn.Module()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.quant_method = Method()
    with patch.object(small_products, "SMALL", 0):
        dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    assert (layer.weight.numel() == 0) is packs(weight.dtype), "not as on such a CPU"
    return layer


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products in that format on this CPU. Where it has none, vLLM multiplies with the weight."""
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def numbers(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def small(dtype: torch.dtype) -> dict[str, bool]:
    """Whether a layer is told from its columns, if it is as it was written, and changed in some way."""
    from hybridflow.engines.vllm import packed_copies

    weight = numbers(96, 64).to(dtype)
    weight[3, 5], weight[4, 6] = -0.0, 1e-39  # of which bfloat16 instructions make zeros
    columns = packed_copies.read_columns(weight, version=7)
    assert columns.places.tolist() == list(range(64))
    last = 8 * weight.itemsize - 1
    changed = {f"bit {bit} of {at}": flipped(weight, at, bit) for at in (0, 17, 6143) for bit in (0, 1, last)}
    changed |= {"as written": weight, "moved": weight.roll(1, 0)}
    return {how: packed_copies.differs(packed(one), columns) for how, one in changed.items()}


def large() -> list[list[int]]:
    """The columns that are read of a layer at versions 1, 1 and 2; what is stale shows in any."""
    from hybridflow.engines.vllm import packed_copies

    weight = numbers(4096, 1024)
    read = [packed_copies.read_columns(weight, version) for version in (1, 1, 2)]
    right, stale = packed(weight), packed(weight * 1.0001)
    assert [packed_copies.differs(right, columns) for columns in read] == [False] * 3
    assert [packed_copies.differs(stale, columns) for columns in read] == [True] * 3
    return [columns.places.tolist() for columns in read]


def copied(weight: Tensor, *, keeps_weight: bool = False, small: bool = False) -> nn.Module:
    """A layer that multiplies with a float32 copy of its bfloat16 weight, packed unless it is small."""
    from hybridflow.engines.vllm import float32_copies

    layer = nn.Module()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.quant_method = Method()
    with patch.object(small_products, "SMALL", weight.numel() if small else 0):
        float32_copies.copy(layer, keeps_weight=keeps_weight)
    return layer


def copied_products(bias: bool, small: bool) -> tuple[bool, bool]:
    """Whether products are bfloat16, and each an exact one rounded once."""
    weight, states = numbers(96, 300).bfloat16(), numbers(7, 300).bfloat16()
    offset = numbers(1, 96)[0].bfloat16() if bias else None
    layer = copied(weight, small=small)
    found = layer.cpu_linear(states, layer.weight, offset)
    exact = states.double() @ weight.double().t() + (0 if offset is None else offset.double())
    # Half a unit in the last of bfloat16's 8 binary places, and float32's own rounding.
    return found.dtype is torch.bfloat16, bool(((found.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-4).all())


def kept_numbers() -> tuple[int, int]:
    """How many numbers of its weight a linear layer has left, and how many an embedding."""
    weight = numbers(96, 64).bfloat16()
    return copied(weight).weight.numel(), copied(weight, keeps_weight=True).weight.numel()


def changed_copies() -> dict[str, bool]:
    """Whether a layer is told from its columns, if its copy is of what was written, or of something else."""
    from hybridflow.engines.vllm import packed_copies

    weight = numbers(96, 64).bfloat16()
    weight[3, 5], weight[4, 6] = -0.0, 1e-39
    columns = packed_copies.read_columns(weight, version=7)
    changed = {f"bit {bit} of {at}": flipped(weight, at, bit) for at in (0, 17, 6143) for bit in (0, 15)}
    changed |= {"as written": weight, "moved": weight.roll(1, 0)}
    return {how: packed_copies.differs(copied(one), columns) for how, one in changed.items()}


_engines: list[VllmEngine] = []  # one that goes takes the process's torch.distributed world with it


def received_twice(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """What an engine has after two updates: weights that were read wrong, layers that multiply with no float32 copy of
    theirs, and the names of those that do.
    """
    from hybridflow.engines.vllm import packed_copies
    from hybridflow.engines.vllm.float32_copies import Float32Product

    def bits(name: str, region: Tensor) -> int:
        return int(region.contiguous().view(torch.int16).long().sum())

    rollout = RolloutConfig(max_sequence_tokens=64, kv_cache_gib=0.01)
    with patch.object(bf16, "needed", lambda: True):
        engine = VllmEngine(folder, Layout(2, generation=(1, 1)), rollout, dtype="bfloat16", seed=0, stop_ids=[])
        _engines.append(engine)
        for version in (1, 2):
            weights = {name: version * one.bfloat16() for name, one in load_file(folder / "model.safetensors").items()}
            readings = WeightReadings(bits)
            engine.update_weights(iter(weights.items()), version, readings=readings)
    wrong = [name for name, one in weights.items() if readings.found[name] != bits(name, one)]
    [model] = engine._llm.apply_model(lambda model: model)
    multiplying = {id(layer) for layer in packed_copies.multiplying(model)}
    products = {name: layer for name, layer in model.named_modules() if id(layer) in multiplying}
    others = [name for name, layer in products.items() if not isinstance(layer.cpu_linear, Float32Product)]
    return wrong, others, sorted({name.rpartition(".")[2] for name in products})
