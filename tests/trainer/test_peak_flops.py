"""Peaks of devices, by their names or by a hardware file; and what share of one was used."""

from __future__ import annotations

import pytest

from hybridflow.config.schema import Config, DType
from hybridflow.planning.hardware_files import read_hardware
from hybridflow.trainer.peak_flops import SHEETS, peak_flops
from hybridflow.trainer.step_metrics import utilization

H100 = "NVIDIA H100 80GB HBM3"


def build_config(dtype: DType = DType.bfloat16, hardware: str = "") -> Config:
    config = Config()
    config.actor.model.dtype = config.critic.model.dtype = dtype
    config.trainer.hardware = hardware
    return config


def test_a_gpu_is_known_by_its_name() -> None:
    assert peak_flops(build_config(), {"actor": [H100, H100]}) == {"actor": 9.89e14}
    assert peak_flops(build_config(DType.float32), {"actor": [H100]}) == {"actor": 6.7e13}


@pytest.mark.parametrize(
    "devices",
    [["NVIDIA H100 PCIe"], ["Tesla T4"], [""], [], [H100, "NVIDIA H200"]],
    ids=["another board", "an unknown one", "a CPU", "none", "two kinds"],
)
def test_what_is_not_known_is_not_guessed(devices: list[str]) -> None:
    assert peak_flops(build_config(), {"actor": devices}) == {}


def test_a_hardware_file_says_it_of_any_device() -> None:
    config = build_config(DType.float32, "cpu")
    assert peak_flops(config, {"actor": [""], "critic": [H100], "reward": []}) == {"actor": 6e10, "critic": 6e10}


def test_each_name_has_a_hardware_file_of_gpus() -> None:
    assert {read_hardware(sheet).device.value for sheet in SHEETS.values()} == {"gpu"}


def test_utilization_is_the_share_of_the_peak_of_roles_that_learned() -> None:
    metrics = {"actor/tflops_per_rank": 247.25, "reference/memory_peak_gib": 1.0}
    assert utilization(metrics, {"actor": 9.89e14, "critic": 9.89e14}) == {"actor/mfu": pytest.approx(0.25)}
