"""Files of a saved engine beside its tensors, looked at before Megatron and torch read them; neither is imported.

A manifest says that files are those that were written, and not that whoever wrote it wrote a checkpoint.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridflow.errors import HybridFlowError, shown
from hybridflow.json_file import a_whole, read_object
from hybridflow.models.weight_files import tensor_shapes

STATE = "state.json"
COMMON = "tensors/common.pt"  # Megatron's, of what is no tensor; there is nothing in it
EMPTY = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\}(q\x00|\x94)?\.", re.DOTALL)  # an empty dictionary, pickled
LONGEST = 64  # bytes of it
RANDOM = frozenset({"torch", "numpy", "numpy_place", "numpy_gauss", "python", "python_gauss"})


@dataclass(frozen=True)
class EngineState:
    """What an engine's checkpoint has in JSON.

    Attributes:
        optimizer_steps: that were taken.
        schedule_steps: those of the learning rate.
        ranks: as many as saved.
        extra: what the role keeps there.
    """

    optimizer_steps: int
    schedule_steps: int
    ranks: int
    extra: dict[str, Any]


def read_state(folder: Path) -> EngineState:
    """Read the state that an engine saved to a folder. Raises HybridFlowError naming what in it is not as it was."""
    file = folder / STATE
    try:
        state = read_object(file)
    except ValueError as error:
        raise HybridFlowError(str(error)) from error
    try:
        extra = state.get("extra")
        if not isinstance(extra, dict):
            raise ValueError(f"extra = {shown(extra)}: an object was expected")
        steps, scheduled = (a_whole(state.get(name), name) for name in ("optimizer_steps", "schedule_steps"))
        return EngineState(steps, scheduled, a_whole(state.get("ranks"), "ranks", 1), extra)
    except ValueError as error:
        raise HybridFlowError(f"{file}: {error}") from error


def check(folder: Path) -> None:
    """Raise HybridFlowError naming a file that is not there, or not what an engine saves."""
    for rank in range(read_state(folder).ranks):
        file = random_file(folder, rank)
        try:
            missing = RANDOM - tensor_shapes(file).keys()
        except ValueError as error:
            raise HybridFlowError(str(error)) from error
        if missing:
            raise HybridFlowError(f"{file} has no {min(missing)}: the states of random number generators were expected")
    _check_common(folder / COMMON)


def _check_common(file: Path) -> None:
    """Raise HybridFlowError if the file has more than the empty dictionary that is written, pickled: nothing is run."""
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            content = archive.read(name) if archive.getinfo(name).file_size <= LONGEST else b""
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise HybridFlowError(f"{file} is not what hybridflow wrote: {error}") from error
    if not EMPTY.fullmatch(content):
        raise HybridFlowError(f"{file} has something in it, and hybridflow writes nothing there; it was not read")


def random_file(folder: Path, rank: int) -> Path:
    """Return the file of a rank's random states."""
    return folder / f"rng-{rank:05d}.safetensors"
