"""Which files a path stands for: a file, a glob, a folder, several of them; and what splits a folder's files make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from os.path import expanduser
from pathlib import Path

from hybridflow.errors import shown
from hybridflow.json_file import read_object

JSON_ENDS = (".jsonl", ".json", ".ndjson")
ENDS = (*(f"{end}{packed}" for end in JSON_ENDS for packed in ("", ".gz", ".zst")), ".parquet", ".arrow")
"""How the name of a file of rows ends."""

HELD_OUT = ("validation", "valid", "val", "dev", "eval", "test")
"""Splits to measure accuracy on, the first that there is before the others."""

_SPLIT_OF_WORD = {"train": "train", "training": "train", **{word: word for word in HELD_OUT}}
_WHOLE = "train"
DICT = "dataset_dict.json"
STATE = "state.json"


def find(path: str | Sequence[str], config: str = "") -> dict[str, list[Path]]:
    """Return the files of each split that a path has; `train` if it has none.

    Args:
        path: one, or several, whose files come one after the other.
        config: a folder inside of one that is a folder.

    Raises ValueError naming what is not there, has no files of rows, or files of several formats.
    """
    if not isinstance(path, str):
        return {_WHOLE: [file for each in path for file in _whole(each, config)]}
    there = Path(expanduser(path))
    if config and there.exists() and not there.is_dir():
        raise ValueError(f"{path} is a file, which has no configurations; leave {config!r} out (config)")
    if has_magic(path) and not there.exists():
        return {_WHOLE: _one_format(path, _globbed(path))}
    if not there.exists():
        raise ValueError(f"there is no file or folder {path}")
    if there.is_dir():
        return _of_folder(there / config if config else there)
    if not there.name.endswith(ENDS):
        raise ValueError(f"{path}: {_strange(there)}; a file of rows ends in {', '.join(ENDS)}{_conversion(there)}")
    return {_WHOLE: [there]}


def _whole(path: str, config: str) -> list[Path]:
    """Return the files of a path that has no splits. Raises ValueError if it has: which of them were meant?"""
    splits = find(path, config)
    if len(splits) > 1:
        raise ValueError(f"{path} has the splits {', '.join(splits)}; in a list give the files of one of them")
    return next(iter(splits.values()))


def _globbed(path: str) -> list[Path]:
    files = sorted(map(Path, glob(expanduser(path), recursive=True)))
    files = [file for file in files if file.is_file()]
    if not files:
        raise ValueError(f"{path} matches no file")
    strange = [file for file in files if not file.name.endswith(ENDS)]
    if strange:
        raise ValueError(f"{path} matches {strange[0]}: {_strange(strange[0])}; rows are in {', '.join(ENDS)}")
    return files


def _of_folder(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if (folder / DICT).is_file():
        names = read_object(folder / DICT).get("splits")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{folder / DICT}: splits = {shown(names)}; a list of their names was expected")
        return {name: _saved(folder / name) for name in names}
    if (folder / STATE).is_file():
        return {_WHOLE: _saved(folder)}
    files = _rows_in(folder)
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    with_rows = [entry for entry in inner if _rows_in(entry)]
    if not files and len(with_rows) == 1:
        files = _rows_in(with_rows[0])
    if not files and with_rows:
        names = ", ".join(entry.name for entry in with_rows)
        raise ValueError(f"{folder} has no files of rows but folders that do: {names}; choose one (config)")
    if not files:
        raise ValueError(f"{folder} has no files of rows; their names end in {', '.join(ENDS)}")
    return _by_split(folder, _one_format(str(folder), files))


def _saved(folder: Path) -> list[Path]:
    """Return the files of a dataset that `save_to_disk` wrote, in their order."""
    try:
        files = [folder / entry["filename"] for entry in read_object(folder / STATE)["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no dataset that `save_to_disk` wrote: {STATE}: {error}") from error
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is not there, but {folder / STATE} names it")
    return files


def _rows_in(folder: Path) -> list[Path]:
    """Return the files of rows directly in a folder, without what describes it."""
    about = ("dataset_info.json", "dataset_infos.json", STATE, DICT)
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name.endswith(ENDS) and not file.name.startswith(".") and file.name not in about
    )


def _one_format(path: str, files: list[Path]) -> list[Path]:
    """Return the files, or raise ValueError if some have JSON and some a table."""
    kinds: dict[str, Path] = {}
    for file in files:
        kinds.setdefault("JSON" if ".json" in file.name or ".ndjson" in file.name else file.suffix[1:], file)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({file.name})" for kind, file in kinds.items())
        raise ValueError(f"{path} has files of several formats: {found}; give those of one, such as {path}/*.parquet")
    return files


def _by_split(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Sort files by the split that their names have a word of, if all of them do (`train-00000-of-00001.parquet`)."""
    splits: dict[str, list[Path]] = {}
    without = []
    for file in files:
        words = [word for word in re.split(r"[^a-z]+", file.name.lower()) if word in _SPLIT_OF_WORD]
        if words:
            splits.setdefault(_SPLIT_OF_WORD[words[0]], []).append(file)
        else:
            without.append(file)
    if splits and without:
        raise ValueError(
            f"{folder}: {next(iter(splits.values()))[0].name} is named after a split and {without[0].name} is not; "
            f"give the files of training as path, such as {folder}/train*, and those to measure on as held_out_path"
        )
    return splits or {_WHOLE: files}


def train_split(splits: Mapping[str, object], name: str) -> str:
    """Return the split to learn from. Raises ValueError if none is named so, or it is not clear which one it is."""
    if name and name not in splits:
        raise ValueError(f"split: there is no split {name!r}; there are {', '.join(splits)}")
    if name:
        return name
    if _WHOLE in splits:
        return _WHOLE
    if len(splits) == 1:
        return next(iter(splits))
    raise ValueError(f"split: the splits are {', '.join(splits)}, none of them {_WHOLE!r}; name the one to learn from")


def held_out_split(splits: Mapping[str, object], name: str, train: str) -> str:
    """Return the split to measure on, or "" if there is none."""
    if name and (name not in splits or name == train):
        others = ", ".join(split for split in splits if split != train)
        raise ValueError(f"held_out_split: there is no other split {name!r}; there are {others or 'none'}")
    return name or next((split for split in HELD_OUT if split in splits and split != train), "")


def _strange(file: Path) -> str:
    return f"its name ends in {file.suffix!r}" if file.suffix else "its name has no ending"


def _conversion(file: Path) -> str:
    """Say how to make a file of rows of a table as people have it."""
    separator = {".csv": "", ".tsv": r", sep='\t'"}.get(file.suffix.lower())
    if separator is None:
        return ""
    made = file.with_suffix(".jsonl").name
    code = f"pandas.read_csv({file.name!r}{separator}).to_json({made!r}, orient='records', lines=True)"
    return f"; of this table python makes one: import pandas; {code}"
