"""The platform: decided once, by what torch sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hybridflow.config.schema import Device
from hybridflow.errors import HybridFlowError
from hybridflow.parallel import bf16
from hybridflow.parallel.platform import Platform, choose_platform, platform


@pytest.fixture(autouse=True)
def undecided() -> Iterator[None]:
    choose_platform(Device.auto)
    yield
    choose_platform(Device.auto)


@pytest.mark.parametrize(
    ("sees", "expected"), [(False, Platform("cpu", "gloo", True)), (True, Platform("cuda", "nccl", False))]
)
def test_it_is_what_torch_sees_and_stays_so(sees: bool, expected: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    assert platform() == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not sees)
    assert platform() == expected


def test_a_slot_that_is_a_cpu_stays_one_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert platform().name == "cuda"
    choose_platform(Device.cpu)
    assert platform() == Platform("cpu", "gloo", True)
    choose_platform(Device.gpu)
    assert platform().name == "cuda"


def test_a_slot_with_a_gpu_that_torch_does_not_see_is_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HybridFlowError, match=r"^placement\.device: this slot has a GPU, but torch .* sees none"):
        choose_platform(Device.gpu)


def test_a_cpu_slot_has_the_threads_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    cpu = Platform("cpu", "gloo", True)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cpu.start(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    cpu.start(3)
    assert given == [1, 2]
    assert cpu.device == torch.device("cpu")
    cpu.synchronize()


def test_a_gpu_slot_takes_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is given none of what a CPU needs."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: taken[-1])
    monkeypatch.setattr(torch, "set_num_threads", None)
    monkeypatch.setattr(bf16, "apply", None)
    monkeypatch.setenv("LOCAL_RANK", "6")
    torch.set_float32_matmul_precision("high")
    cuda = Platform("cuda", "nccl", False)
    cuda.start(6)
    assert taken == [2] and cuda.device == torch.device("cuda", 2)
    assert os.environ["LOCAL_RANK"] == "2", "Ray may show a process its own GPU only"
    assert torch.get_float32_matmul_precision() == "highest"


def test_only_a_gpu_is_beside_the_host() -> None:
    assert Platform("cuda", "nccl", False).accelerated and not Platform("cpu", "gloo", True).accelerated


def test_transformer_engine_is_for_a_gpu_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = Platform("cpu", "gloo", True), Platform("cuda", "nccl", False)
    assert not cuda.transformer_engine and not cpu.transformer_engine
    (tmp_path / "transformer_engine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert cuda.transformer_engine and not cpu.transformer_engine


def test_the_memory_of_a_cpu_is_that_of_the_process() -> None:
    cpu, size = Platform("cpu", "gloo", True), 200 * 2**20
    cpu.reset_memory_peak()
    before = cpu.memory_peak()
    held = torch.ones(size, dtype=torch.uint8)
    with_it = cpu.memory_peak()
    assert with_it - before == pytest.approx(size, rel=0.2)
    del held
    cpu.reset_memory_peak()
    assert with_it - cpu.memory_peak() == pytest.approx(size, rel=0.2), "a new peak is watched for"


def test_a_cpu_has_nowhere_to_park_tensors() -> None:
    tensor = torch.arange(6.0)
    parked = Platform("cpu", "gloo", True).offload([tensor])
    assert parked.nbytes == 0 and tensor.tolist() == [0, 1, 2, 3, 4, 5]
    parked.restore()
    assert tensor.tolist() == [0, 1, 2, 3, 4, 5]
    assert Platform("cuda", "nccl", False).offload([tensor]).nbytes == 24
