"""Weights of a Hugging Face folder, read in slices.

A slice is cut out of the mapped file, so a process holds one slice at a time, whatever the model's size. What the
system keeps of the file's pages is its own affair; of a tensor whose rows are split these may be most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from hybridflow.errors import shown
from hybridflow.json_file import LFS_POINTER, is_there, read_object, refuse_pointer
from hybridflow.models.head import SCORE_HEAD, VALUE_HEAD, Head
from hybridflow.models.model_export import unreadable
from hybridflow.models.model_shape import ModelShape
from hybridflow.models.weight_table import OUTPUT, Weight, table

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = ("BF16", "F16", "F32", "F64")  # formats as safetensors calls them: others are quantized, or no weights


@dataclass(frozen=True)
class Slice:
    """Part of one weight that a rank reads: `span` of its split axis; all of it if it is not split."""

    weight: Weight
    span: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the slice."""
        a, b = self.span
        return self.weight.with_length(b - a)

    @property
    def elements(self) -> int:
        """Number of elements of the slice."""
        return math.prod(self.shape)


def in_folder(shape: ModelShape, plan: Sequence[Slice]) -> list[Slice]:
    """Select the slices to be read of a folder: a reward model that starts from a language model has no score there."""
    return [part for part in plan if shape.head is not Head.lm or part.weight.name != SCORE_HEAD]


def read_slices(folder: str | Path, plan: Sequence[Slice]) -> Iterator[tuple[Slice, Tensor]]:
    """Read the slices one by one, in the format of the folder; a critic's head may be missing and is left out.

    Raises:
        FileNotFoundError: the folder has no safetensors.
        KeyError: a tensor is missing; the message names it.
        ValueError: a tensor has another shape than config.json says, or values that are not finite.
    """
    files = tensor_files(Path(folder))
    for item in plan:
        weight = item.weight
        if weight.name not in files:
            if weight.name == VALUE_HEAD:
                continue
            raise KeyError(f"{folder} has no tensor {weight.name!r}")
        with safe_open(files[weight.name], framework="pt") as reader:
            source = reader.get_slice(weight.name)
            actual = tuple(source.get_shape())
            if actual != weight.shape:
                raise ValueError(f"{folder}: {weight.name} has shape {actual}; by config.json it is {weight.shape}")
            a, b = item.span
            values = source[:, a:b] if weight.axis == 1 else source[a:b]
            if values.numel() and not all(bound.isfinite() for bound in values.aminmax()):
                raise ValueError(f"{files[weight.name]}: {weight.name} has values that are not finite: nan or inf")
            yield item, values


def refuse_unread(folder: str | Path, shape: ModelShape, *, head: Head = Head.lm) -> None:
    """Raise ValueError naming a tensor that the folder has and a model of this shape does not.

    An output layer beside a tied embedding or another head, the score of a reward model that a critic starts from, and
    frequencies, which are computed, are left unread.
    """
    known = {weight.name for weight in table(shape, head=head)} | {OUTPUT}
    known |= {SCORE_HEAD} if head is Head.value else set()
    extra = [name for name in tensor_files(Path(folder)) if name not in known and not name.endswith(".inv_freq")]
    if extra:
        raise ValueError(
            f"{folder} has tensors that a {shape.family} model of its config.json does not have, such as {extra[0]!r} "
            f"({len(extra)} in all): they would be ignored"
        )


def tensor_files(folder: Path) -> dict[str, Path]:
    """Map each tensor to its file.

    Raises:
        FileNotFoundError: the folder has no safetensors.
        ValueError: it has two sets of them, of which transformers reads the one and vLLM the other.
    """
    if is_there(folder / INDEX):
        named = _weight_map(folder / INDEX)
        if (folder / SINGLE).is_file() and SINGLE not in named.values():
            raise ValueError(
                f"{folder} has {SINGLE}, and {INDEX} that names other files: it cannot be known which are the model's "
                "weights; move the ones that are not out of the folder"
            )
        return {name: folder / file for name, file in named.items()}
    if not is_there(folder / SINGLE):
        raise FileNotFoundError(f"{folder} has neither {INDEX} nor {SINGLE}: only safetensors are read")
    return dict.fromkeys(tensor_shapes(folder / SINGLE), folder / SINGLE)


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file by its header. Raises as `tensor_headers`."""
    return {name: shape for name, (shape, _) in tensor_headers(file).items()}


def tensor_headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and format of each tensor of a safetensors file by its header; torch is not imported.

    Raises ValueError naming the file: it cannot be read, is truncated, or is no safetensors at all.
    """
    if not is_there(file):
        raise ValueError(f"{file}: there is no such file")
    try:
        with file.open("rb") as stream:
            refuse_pointer(file, stream.read(len(LFS_POINTER)))
        with safe_open(file, framework="numpy") as reader:
            slices = {name: reader.get_slice(name) for name in reader.keys()}  # noqa: SIM118
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    except SafetensorError as error:
        size = file.stat().st_size
        raise ValueError(f"{file}, of {size} bytes, is not whole, or no safetensors: {error}") from error


def why_broken(folder: str | Path, shape: ModelShape) -> str | None:
    """Explain what is wrong with the weights of a folder: not there, not whole, or of another shape; None: nothing.

    Headers alone are read. What stands on top of the decoder is left to what reads it.
    """
    try:
        _refuse_broken(folder, shape)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return None


def _refuse_broken(folder: str | Path, shape: ModelShape) -> None:
    if closed := unreadable(Path(folder)):
        raise ValueError(f"{closed}: Permission denied")
    files = tensor_files(Path(folder))
    headers = {file: tensor_headers(file) for file in dict.fromkeys(files.values())}
    for name, file in files.items():
        if name not in headers[file]:
            raise ValueError(f"{file} has no tensor {name!r}, which {INDEX} says is in it")
    for weight in table(shape):
        if weight.name in (OUTPUT, SCORE_HEAD, VALUE_HEAD):
            continue
        if weight.name not in files:
            raise ValueError(f"{folder} has no tensor {weight.name!r}, which a model of its config.json has")
        actual, dtype = headers[files[weight.name]][weight.name]
        if actual != weight.shape:
            raise ValueError(
                f"{files[weight.name]}: {weight.name} has shape {actual}; by config.json it is {weight.shape}"
            )
        if dtype not in FLOATS:
            raise ValueError(f"{files[weight.name]}: {weight.name} is of {dtype}; one of {', '.join(FLOATS)} is read")


def _weight_map(index: Path) -> dict[str, str]:
    """Read the file of each tensor, as an index names it."""
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{index}: weight_map = {shown(named)}: an object was expected, of files by tensors' names")
    for file in named.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"{index}: weight_map names {shown(file)}: the name of a file beside it was expected")
    return named
