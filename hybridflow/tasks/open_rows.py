"""Files of rows, opened, by the splits that a path has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path

from hybridflow.json_file import is_there
from hybridflow.tasks import row_paths, unpacked_files
from hybridflow.tasks.arrow_files import ArrowFile, parquet_to_arrow
from hybridflow.tasks.hub_rows import fetched, is_hub_id
from hybridflow.tasks.row_files import JsonLines, RowFile
from hybridflow.tasks.unpacked_files import unpacked


def open_rows(
    option: str, path: str | Sequence[str], config: str | None, revision: str | None
) -> Mapping[str, Sequence[RowFile]]:
    """Open the files of each split of a path. Raises ValueError, which begins with the option, if that cannot be."""
    try:
        if isinstance(path, str) and is_hub_id(path) and not Path(expanduser(path)).exists():
            files = fetched(path, config, revision)
        elif revision:
            raise ValueError(
                f"{path} is no id of the hub, which alone has revisions; leave {revision!r} out (revision)"
            )
        else:
            files = row_paths.find(path, config or "")
        return {split: [open_file(file) for file in of_split] for split, of_split in files.items()}
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    except OSError as error:
        raise ValueError(f"{option}: {error.filename or path}: {error.strerror or error}") from error


def open_file(file: Path) -> RowFile:
    """Open a file of rows by how its name ends. Raises ValueError or OSError if it cannot be read."""
    if not is_there(file):  # which of a pipe, whose reading may never end, says that it is no file
        raise ValueError(f"{file} is no longer there")
    if file.suffix == ".parquet":
        return ArrowFile(unpacked(file, ".arrow", parquet_to_arrow), str(file))
    if file.suffix == ".arrow":
        return ArrowFile(file)
    lines = file
    if file.suffix in (".gz", ".zst"):
        write = unpacked_files.unpack_gzip if file.suffix == ".gz" else unpacked_files.unpack_zstd
        lines = unpacked(file, ".jsonl", write)
    if unpacked_files.is_array(lines):
        as_lines = unpacked(lines, ".lines.jsonl", unpacked_files.array_to_lines(str(file)))
        return JsonLines(as_lines, str(file), ": element {}")
    return JsonLines(lines, str(file))
