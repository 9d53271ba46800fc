"""Hardware files: those that come along can be read, one that is written is read as it was, a wrong one says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridflow.errors import ConfigError
from hybridflow.planning.hardware import Curve
from hybridflow.planning.hardware_files import hardware_names, read_hardware, write_hardware


@pytest.mark.parametrize("name", hardware_names())
def test_hardware_that_is_written_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    hardware = read_hardware(name)
    write_hardware(hardware, tmp_path / f"{name}.yaml")
    assert read_hardware(tmp_path / f"{name}.yaml") == hardware
    assert hardware.source


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("memory_bytes: 8.55208e+10", "memory_bytes: much"),
            "memory_bytes: 'much' given; a number above 0 was expected",
        ),
        (("latency_s: 4.0e-6", "latency: 1"), "within.latency: no such key; did you mean latency_s?"),
        (("device: gpu", "device: tpu"), "device: 'tpu' given; one of cpu, gpu was expected"),
        (("bfloat16: 9.89e+14", "float8: 1e15"), "flops: 'float8' given; one of float32, bfloat16 was expected"),
        (("device: gpu", "device: auto"), "device: 'auto' given; one of cpu, gpu was expected"),
        (("devices_per_node: 8", "devices_per_node: 8.5"), "devices_per_node: 8.5 given; a whole number of at most"),
        (("devices_per_node: 8", "devices_per_node: 1e9"), "devices_per_node: 1000000000.0 given; a whole number of"),
        (("8.55208e+10", "9" * 400), f"memory_bytes: {'9' * 400} given; a number above 0 was expected"),
        (("9.89e+14", "1e-300"), "flops.bfloat16: 1e-300 given; a number between 1e-24 and 1e+24 was expected"),
        (("device: gpu", "device: gpu\noverheads: {call: 1e308}"), "overheads.call: 1e+308 given; a number between"),
        (("devices_per_node: 8\n", ""), "devices_per_node is missing"),
        (
            ("device: gpu", "device: gpu\nefficiency: {reading: 2}"),
            "efficiency.reading: 2 given; a share, of 1 at most",
        ),
        (
            ("device: gpu", "device: gpu\nefficiency: {matmul: {sizes: [2, 1], values: [1, 1]}}"),
            "efficiency.matmul: sizes [2.0, 1.0] with values [1.0, 1.0]: as many of both were expected",
        ),
    ],
)
def test_a_wrong_file_is_one_error_with_its_key(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "hybridflow/planning/sheets/h100_80g_8x.yaml").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(*change))
    with pytest.raises(ConfigError) as caught:
        read_hardware(file)
    assert str(caught.value).startswith(f"{file}: {said}")


def test_a_name_that_is_none_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"'h1000'; did you mean h100_80g_8x.*There is a100_.*hybridflow profile"):
        read_hardware("h1000")


@pytest.mark.parametrize("name", ["../sheets/cpu", "a" * 5000, "\0"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="hardware: nothing is named"):
        read_hardware(name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.yaml is no file; there is a100"):
        read_hardware(tmp_path.rename(tmp_path.with_suffix(".yaml")))


def test_a_curve_is_linear_in_the_logarithm_and_constant_beyond_its_ends() -> None:
    curve = Curve((1.0, 100.0), (0.2, 0.6))
    sizes = np.array([0.1, 1.0, 10.0, 1000.0])
    assert curve.at(sizes).tolist() == pytest.approx([0.2, 0.2, 0.4, 0.6])
    assert [curve.at(size) for size in sizes.tolist()] == pytest.approx([0.2, 0.2, 0.4, 0.6])
    assert Curve((5.0,), (0.3,)).at(np.array([1.0, 9.0])).tolist() == [0.3, 0.3]
