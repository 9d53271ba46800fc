"""Export of a run's model: a Hugging Face folder that others can load, whichever layout trained it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from hybridflow.config.model_roles import section
from hybridflow.errors import ConfigError
from hybridflow.json_file import is_there, read_object
from hybridflow.models import model_export
from hybridflow.models.weight_files import INDEX, SINGLE
from hybridflow.observe.disk_errors import writing
from hybridflow.tasks.tokenizer import end_ids
from hybridflow.trainer.model_card import card
from hybridflow.trainer.saved_run import SavedModel

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE_BYTES = 5 * 10**9  # as on Hugging Face's hub; larger files of weights are cut
CARD = "README.md"


def export(saved: SavedModel, out: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> int:
    """Write the model to `out`, which gets its name when it is whole, and return the bytes of its weights.

    Raises ConfigError if `out` is in the way, or the model cannot be read; HybridFlowError if the disk is full.
    """
    refuse(out)
    try:
        return _export(saved, out, max_file_bytes)
    except (ValueError, FileNotFoundError) as error:
        if getattr(error, "errno", None) is not None:  # of a file that is written
            raise
        raise ConfigError(f"{saved.name} cannot be exported: {error}") from error


def _export(saved: SavedModel, out: Path, max_file_bytes: int) -> int:
    source = saved.folder
    generation = _generation_config(saved)
    with writing(out):
        partial = model_export.begin(out)
        try:
            size = _write_weights(_in_dtype(saved), partial, max_file_bytes)
            model_export.copy_extras(source, partial)
            model_export.write_config(source, partial, dtype=_dtype(saved), head=saved.head)
            _write_generation_config(generation, partial)
            (partial / CARD).write_text(card(saved), encoding="utf-8")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        model_export.finish(out)
    return size


def refuse(out: Path) -> None:
    """Raise ConfigError if something is at `out`: what others made is never overwritten."""
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: there is something already; give a folder that is empty or not there")
    above = next(path for path in out.absolute().parents if os.path.lexists(path))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "cannot be written" if above.is_dir() else "is no folder"
        raise ConfigError(f"--out {out}: {above} {what}; choose another place")


def _dtype(saved: SavedModel) -> str:
    return str(section(saved.config, saved.role).model.dtype.value)


def _in_dtype(saved: SavedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights in the number format that the run trained in: what a checkpoint holds are its master copies."""
    import torch

    dtype = getattr(torch, _dtype(saved))
    for name, tensor in saved.tensors():
        yield name, tensor.to(dtype).contiguous()


def _write_weights(tensors: Iterable[tuple[str, Tensor]], folder: Path, max_file_bytes: int) -> int:
    """Write the weights, one file of at most that size at a time; return their bytes."""
    files: list[Path] = []
    names: list[list[str]] = []
    total = 0
    for part in _parts(tensors, max_file_bytes):
        file = folder / f".part-{len(files)}.safetensors"
        save_file(part, file, {"format": "pt"})
        model_export.open_to_readers(file)
        files.append(file)
        names.append(list(part))
        total += sum(tensor.nbytes for tensor in part.values())
    if len(files) == 1:
        files[0].rename(folder / SINGLE)
        return total
    weight_map: dict[str, str] = {}
    for number, (file, own) in enumerate(zip(files, names, strict=True), 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        file.rename(folder / name)
        weight_map |= dict.fromkeys(own, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total


def _parts(tensors: Iterable[tuple[str, Tensor]], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Put tensors together while they fit; one that is larger is alone."""
    part: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if part and sum(one.nbytes for one in part.values()) + tensor.nbytes > max_bytes:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _generation_config(saved: SavedModel) -> dict[str, Any]:
    """Return how to generate so that responses end where the run's own did: also at the end of a turn of its chat."""
    if saved.role != "actor":
        return {}
    file = saved.folder / "generation_config.json"
    config = read_object(file) if is_there(file) else {}
    ends = end_ids(saved.folder, saved.config.task.chat_template_kwargs)
    return {**config, "eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else config


def _write_generation_config(config: dict[str, Any], folder: Path) -> None:
    if not config:
        return
    file = folder / "generation_config.json"
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.chmod(file, (folder / "config.json").stat().st_mode)
