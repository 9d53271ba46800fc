"""What engines ask of a CPU and of a GPU."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from megatron.core.distributed import DistributedDataParallelConfig

from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.megatron import optimizer
from hybridflow.engines.vllm import hardware_options
from hybridflow.parallel.platform import Platform
from hybridflow.planning.generation_cost import CPU_BLOCK

CPU, CUDA = Platform("cpu", "gloo", True), Platform("cuda", "nccl", False)
ROLLOUT = RolloutConfig(kv_cache_gib=0.5, gpu_memory_fraction=0.4)


@pytest.fixture(params=[CPU, CUDA], ids=lambda platform: platform.name)
def hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Platform:
    for module in (optimizer, hardware_options):
        monkeypatch.setattr(module, "platform", lambda: request.param)
    found: Platform = request.param
    return found


def test_gradients_are_reduced_beside_a_backward_pass_on_a_gpu_only(hardware: Platform) -> None:
    assert optimizer.ddp_options() == {"overlap_grad_reduce": hardware is CUDA}
    assert not DistributedDataParallelConfig(**optimizer.ddp_options()).overlap_param_gather


def test_adamw_is_fused_on_a_cpu_and_steps_all_parameters_together_on_a_gpu(
    hardware: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU torch does so by default, which any choice of `fused` ends; here it takes this CPU for one."""
    adam = import_module("torch.optim.adam")  # which torch.optim has no more as an attribute
    monkeypatch.setattr(adam, "_default_to_fused_or_foreach", lambda *_, **__: (False, True))
    together = []
    monkeypatch.setattr(adam, "_multi_tensor_adam", lambda params, *_, **__: together.append(len(params)))
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    adamw = torch.optim.AdamW(params)
    for group in adamw.param_groups:
        group.update(optimizer.step_options())
    for param in params:
        param.grad = torch.ones(2)
    adamw.step()
    assert together == ([3] if hardware is CUDA else [])
    assert adamw.param_groups[0]["fused"] is (None if hardware is CUDA else True)


def test_vllm_gets_the_options_of_its_hardware(hardware: Platform) -> None:
    on_gpu = {"gpu_memory_utilization": 0.4, "disable_custom_all_reduce": True, "enable_sleep_mode": True}
    for ranks in (1, 4):  # of a replica, whose cache they share out
        on_cpu = {"kv_cache_memory_bytes": 2**29 // ranks, "enable_chunked_prefill": False, "block_size": CPU_BLOCK}
        assert hardware_options.hardware_options(ROLLOUT, ranks) == (on_gpu if hardware is CUDA else on_cpu)


def test_only_a_gpu_puts_vllm_to_sleep_and_says_that_its_weights_are_lost(hardware: Platform) -> None:
    said: list[tuple[str, object]] = []
    llm = SimpleNamespace(
        sleep=lambda level: said.append(("sleep", level)), wake_up=lambda tags: said.append(("wake", tags))
    )
    assert hardware_options.fall_asleep(llm) is (hardware is CUDA)
    hardware_options.wake(llm, "weights")
    hardware_options.wake(llm, "kv_cache")
    assert said == ([("sleep", 2), ("wake", ["weights"]), ("wake", ["kv_cache"])] if hardware is CUDA else [])


def test_a_vllm_that_does_not_wake_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its weights alone it may sleep on."""
    monkeypatch.setattr(hardware_options, "platform", lambda: CUDA)
    llm = SimpleNamespace(wake_up=lambda tags: False)
    hardware_options.wake(llm, "weights")
    with pytest.raises(RuntimeError, match="did not wake up"):
        hardware_options.wake(llm, "kv_cache")
