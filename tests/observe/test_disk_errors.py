"""Trouble with a disk is told in one line, with the path, whatever was made of it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

from hybridflow.errors import HybridFlowError
from hybridflow.observe.disk_errors import DiskError, writing


def test_an_error_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(HybridFlowError, match=rf"^No space left on device: {tmp_path}/x$"), writing(tmp_path / "x"):
        Path("/dev/full").write_text("x")


def test_an_error_with_a_path(tmp_path: Path) -> None:
    with pytest.raises(HybridFlowError, match=rf"^No such file or directory: {tmp_path}/x/y$"), writing(tmp_path):
        (tmp_path / "x/y").write_text("")


def test_an_error_that_was_made_into_another(tmp_path: Path) -> None:
    with pytest.raises(HybridFlowError, match=r"^Read-only file system: /there$"), writing(tmp_path):
        try:
            raise OSError(errno.EROFS, "Read-only file system", "/there")
        except OSError as error:
            raise RuntimeError("unexpected pos 64") from error


def test_an_error_of_a_library_in_rust(tmp_path: Path) -> None:
    """Its exception is no OSError, and has none behind it; what was written is gone, so that there is room again."""
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(HybridFlowError, match=rf"^File too large: {tmp_path}$"), writing(tmp_path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, most))
        try:
            save_file({"weight": np.zeros(2**10)}, tmp_path / "model.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_error_that_says_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^iostream$"), writing(tmp_path / "file"):
        raise RuntimeError("iostream")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f".probe-{os.getpid()}").symlink_to("/dev/full")
    with (
        pytest.raises(HybridFlowError, match=rf"^No space left on device: {tmp_path}/file$"),
        writing(tmp_path / "file"),
    ):
        raise RuntimeError("iostream")


@pytest.mark.parametrize("error", [HybridFlowError("already told"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_not_of_the_disk_stays_as_it_is(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as found, writing(tmp_path):
        raise error
    assert found.value is error


def test_what_another_rank_found_is_told_as_it_is(tmp_path: Path) -> None:
    class RanksError(BaseException):
        """As torch's CheckpointException, which carries what was raised on each rank."""

        failures: ClassVar = {1: (DiskError("No space left on device: /there"), "its stack")}

    with pytest.raises(DiskError, match=r"^No space left on device: /there$"), writing(tmp_path):
        raise RanksError
