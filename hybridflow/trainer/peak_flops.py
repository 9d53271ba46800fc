"""Peak FLOP/s of the devices of a run, as far as they are known: of what ROLE/mfu is a share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config
from hybridflow.planning.hardware import Hardware
from hybridflow.planning.hardware_files import read_hardware

SHEETS = {
    "NVIDIA A100-SXM4-80GB": "a100_80g_8x",
    "NVIDIA H100 80GB HBM3": "h100_80g_8x",
    "NVIDIA H200": "h200_141g_8x",
    "NVIDIA B200": "b200_180g_8x",
    "NVIDIA GB200": "gb200_186g_72x",
}
"""By the name that a GPU's driver gives it, the hardware file of ours that is of such GPUs.

The same chip on another board, as PCIe's, has another name and other numbers.
"""


def peak_flops(config: Config, devices: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """Return by role with a model what one of its devices could do at most a second, in the role's number format.

    A role is left out whose devices are of several kinds or of none that is known, or of a format that its hardware
    file does not have.

    Args:
        devices: by role, the names of the devices that it is on; that of a CPU is empty.

    Raises ConfigError if `trainer.hardware` cannot be read.
    """
    given = read_hardware(config.trainer.hardware) if config.trainer.hardware else None
    found = {}
    for role in with_models(config, devices):
        hardware = given or _known(set(devices[role]))
        peak = hardware.flops.get(section(config, role).model.dtype) if hardware else None
        if peak:
            found[role] = peak
    return found


def _known(names: set[str]) -> Hardware | None:
    name = names.pop() if len(names) == 1 else ""
    return read_hardware(SHEETS[name]) if name in SHEETS else None
