"""The index of saved tensors (`tensors/.metadata`), looked at before Megatron and torch read it.

It is a pickle, and theirs runs whatever is in it. Here nothing is: each class that belongs into an index is an inert
stand-in, and any other is refused. Neither torch nor Megatron is imported, so a driver can look too.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from hybridflow.errors import HybridFlowError
from hybridflow.json_file import read_object

TENSORS = "tensors"
INDEX = ".metadata"
METADATA = "torch.distributed.checkpoint.metadata"
# What torch 2.13 and Megatron-core 0.16.1 write for tensors. Not `BytesStorageMetadata`, an entry of any object, which
# torch would unpickle from another file.
KNOWN = {
    *((METADATA, name) for name in ("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta")),
    *((METADATA, name) for name in ("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *(("torch", name) for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    ("pathlib", "PosixPath"),
}


class Inert:
    """Stand-in for an object of an index: takes what it is made of, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Raise ValueError for what does not belong into an index."""
        if (module, name) not in KNOWN:
            raise ValueError(f"it asks for {module}.{name}, which belongs into no index of tensors")
        return Inert


def check(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that an engine saved to a folder, by their names.

    Raises HybridFlowError, having run nothing of it, if its index is not of tensors alone, or they are not there whole.
    """
    file = folder / TENSORS / INDEX
    try:
        with file.open("rb") as stream:
            index = _Unpickler(stream).load()
        _check_places(index, folder / TENSORS)
        shapes = {name: tuple(saved.size.arguments[0]) for name, saved in index.state_dict_metadata.items()}
        backend = read_object(folder / TENSORS / "metadata.json").get("sharded_backend")
        if backend != "torch_dist":
            raise ValueError(f"metadata.json says sharded_backend = {backend!r}, torch_dist was expected")
    except Exception as error:  # whatever an unpickler may raise of bytes that are no pickle
        raise HybridFlowError(
            f"{file} is not an index that hybridflow wrote: {error}. Nothing of it was run; take a checkpoint from "
            "somebody whom you trust"
        ) from error
    return shapes


def _check_places(index: Any, folder: Path) -> None:
    """Raise ValueError if tensors are said to be elsewhere than in the folder's files, or packed by somebody's code."""
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    for place in index.storage_data.values():
        if Path(place.relative_path).name != place.relative_path:
            raise ValueError(f"a tensor would be in {place.relative_path!r}, outside of its folder")
        if getattr(place, "transform_descriptors", None):
            raise ValueError(f"a tensor is packed by {place.transform_descriptors!r}")
        if place.offset + place.length > sizes.get(place.relative_path, 0):
            raise ValueError(f"a tensor would be in {place.relative_path!r}, which is not there, or too short for it")
