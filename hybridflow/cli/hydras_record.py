"""Hydra's own record in run folders, written before their runs begin: where none begins, the earlier one stays.

Hydra writes the composition into `.hydra` before it calls anyone. If nothing comes of that run, an earlier one's would
be lost.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hybridflow.cli.stage_record import mark

OUTPUT = ".hydra"


@contextmanager
def kept(folders: Sequence[Path]) -> Iterator[None]:
    """Restore Hydra's files in these folders after the block, unless a run began there."""
    before = {folder: (mark(folder), _written(folder)) for folder in folders}
    without = [folder for folder in folders if not (folder / OUTPUT).exists()]
    made = {folder: [path for path in (folder, *folder.parents) if not path.exists()] for folder in folders}
    try:
        yield
    finally:
        for folder, (earlier, files) in before.items():
            if mark(folder) == earlier:
                with suppress(OSError):  # a disk that is full, or has become read-only
                    _put_back(folder / OUTPUT, files)
                    if folder in without:
                        shutil.rmtree(folder / OUTPUT, ignore_errors=True)
                    for path in made[folder]:
                        path.rmdir()  # the first that something is in ends it


def _written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / OUTPUT).glob("*.yaml") if file.is_file()}


def _put_back(output: Path, files: dict[str, bytes]) -> None:
    for file in output.glob("*.yaml"):
        if file.name not in files and not file.is_dir():
            file.unlink()
    for name, content in files.items():
        if (output / name).read_bytes() != content:
            (output / name).write_bytes(content)
