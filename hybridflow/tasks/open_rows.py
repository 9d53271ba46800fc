"""Files of rows, opened, by the splits that a path has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hybridflow.tasks import row_paths
from hybridflow.tasks.row_files import JsonLines, RowFile


def open_rows(
    option: str, path: str | Sequence[str], config: str | None, revision: str | None
) -> dict[str, list[RowFile]]:
    """Open the files of each split of a path. Raises ValueError, which begins with the option, if that cannot be."""
    try:
        return {split: [_open(file) for file in files] for split, files in row_paths.find(path, config or "").items()}
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def _open(file: Path) -> RowFile:
    return JsonLines(file)
