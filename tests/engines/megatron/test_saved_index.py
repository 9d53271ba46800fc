"""An index of saved tensors that would run code, or read what is not its own, is refused and not run."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from hybridflow.engines.megatron import saved_index
from hybridflow.engines.megatron.backend import MegatronBackend
from hybridflow.errors import HybridFlowError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What one process saves by torch's own writer, as engines do."""
    writer = checkpoint.FileSystemWriter(tmp_path / "tensors", thread_count=1)
    tensors = {"weights/a": torch.zeros(3, 4), "exp_avg/b": torch.ones(2, dtype=torch.bfloat16)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(tensors, storage_writer=writer, no_dist=True)
    (tmp_path / "tensors/metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))
    return tmp_path


class Bomb:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def elsewhere(metadata: Metadata) -> None:
    """Let the tensors be in a file of somebody else's."""
    metadata.storage_data = {
        key: replace(place, relative_path=f"../../{place.relative_path}")
        for key, place in metadata.storage_data.items()
    }


def packed(metadata: Metadata) -> None:
    """Let code unpack the tensors."""
    metadata.storage_data = {
        key: replace(place, transform_descriptors=["stream.zstd"]) for key, place in metadata.storage_data.items()
    }


def of_bytes(metadata: Metadata) -> None:
    """Let a tensor be any object, which torch unpickles."""
    metadata.state_dict_metadata = {"weights/a": BytesStorageMetadata()}


def explosive(metadata: Metadata) -> None:
    metadata.planner_data = Bomb(importlib.import_module, "antigravity")


def indirect(metadata: Metadata) -> None:
    """By a name inside of a module that is allowed."""
    metadata.planner_data = Bomb(torch.load, "x")


def test_what_was_saved_passes(saved: Path) -> None:
    assert saved_index.check(saved) == {"weights/a": (3, 4), "exp_avg/b": (2,)}
    assert MegatronBackend.saved_shapes(saved) == {"a": (3, 4)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (explosive, "importlib.import_module"),
        (indirect, "torch.serialization.load"),
        (of_bytes, "BytesStorageMetadata"),
        (elsewhere, "'../../__0_0.distcp', outside of its folder"),
        (packed, "packed by"),
    ],
)
def test_what_was_not_is_refused(saved: Path, change: Callable[[Metadata], None], told: str) -> None:
    file = saved / "tensors/.metadata"
    metadata = pickle.loads(file.read_bytes())
    change(metadata)
    file.write_bytes(pickle.dumps(metadata))
    with pytest.raises(HybridFlowError, match="Nothing of it was run") as refused:
        saved_index.check(saved)
    assert told in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize("change", [lambda file: os.truncate(file, 9), Path.unlink])
def test_tensors_that_are_not_there_whole_are_told_before_a_rank_reads_them(
    saved: Path, change: Callable[[Path], object]
) -> None:
    change(saved / "tensors/__0_0.distcp")
    with pytest.raises(HybridFlowError, match=r"'__0_0\.distcp', which is not there, or too short"):
        saved_index.check(saved)


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"no pickle", pickle.dumps([1]), pickle.dumps(None)])
def test_what_is_no_index_is_one_error(saved: Path, data: bytes) -> None:
    (saved / "tensors/.metadata").write_bytes(data)
    with pytest.raises(HybridFlowError, match=r"tensors/\.metadata is not an index"):
        saved_index.check(saved)


def test_another_backend_is_refused(saved: Path) -> None:
    (saved / "tensors/metadata.json").write_text(json.dumps({"sharded_backend": "zarr"}))
    with pytest.raises(HybridFlowError, match="sharded_backend = 'zarr'"):
        saved_index.check(saved)
