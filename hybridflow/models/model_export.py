"""Folder of a trained model: what belongs into it beside the weights, and how it takes the place of an earlier one.

A folder is written beside its place, as `.NAME.partial`, and gets its name when it is whole; so whatever ends the
process, and whenever, the name is that of the earlier folder or of the new one, and no file of the one is in the other.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridflow.json_file import read_object
from hybridflow.models.head import Head
from hybridflow.models.score_head import as_scorer

# What is copied from the folder that training started from, which may hold anything. A README or a model card is not:
# it says of other weights what these need not have. Licenses go with what was made of the weights.
EXTRAS = (
    "generation_config.json",
    *("tokenizer.json", "tokenizer.*.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "*.tiktoken", "tekken.json"),
    *("tokenizer.model", "tokenizer.model.v*", "spiece.model", "spm.model"),
    *("sentencepiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
LICENSES = ("LICENSE*", "LICENSE*", "NOTICE*", "USE_POLICY*")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def open_to_readers(file: Path) -> None:
    """Set a file's mode to that of any new file here: safetensors writes what its owner alone may read."""
    probe = file.with_name(f".{file.name}.mode")
    probe.touch()
    file.chmod(probe.stat().st_mode)
    os.remove(probe)


def beside(folder: Path) -> Path:
    """Return the path at which a folder is written until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def begin(folder: Path) -> Path:
    """Make an empty folder to write the new one into. What an interrupted export left is put right.

    Raises NotADirectoryError if a file has the folder's name.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: a model is a folder; move the file away")
    former = _former(folder)
    partial = beside(folder)
    if former.exists() and not folder.exists():
        former.rename(folder)
    for left in (former, partial):
        if left.exists():
            _remove_model(left, folder)
    partial.mkdir(parents=True)
    return partial


def finish(folder: Path) -> None:
    """Give what was written since `begin` its name, at once; the model that had it is removed.

    What someone has put beside the earlier model, and is no part of one, stays in the folder.
    """
    partial = beside(folder)
    for path in (*partial.rglob("*"), partial):
        _flush(path)
    if not folder.exists():
        partial.rename(folder)
    elif _exchange(partial, folder):
        _remove_model(partial, folder)
    else:  # a file system that cannot: for a moment neither has the name, but both are whole, and `begin` goes on
        folder.rename(_former(folder))
        partial.rename(folder)
        _remove_model(_former(folder), folder)
    _flush(folder.parent)


def copy_extras(source: Path, folder: Path) -> None:
    """Copy what belongs to a model beside its config and its weights: the tokenizer, how it generates, its license."""
    for file in _matching(source, (*EXTRAS, *LICENSES)):
        if not file.is_file():  # a link that leads nowhere, or to a folder: no reason to lose what was trained
            continue
        target = folder / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)  # its content alone: a hub's files may be read only


def unreadable(source: Path) -> Path | None:
    """Return a file that `copy_extras` would have to read and this process may not; None if there is none."""
    files = (file for file in _matching(source, (*EXTRAS, *LICENSES)) if file.is_file())
    return next((file for file in files if not os.access(file, os.R_OK)), None)


def write_config(source: Path, folder: Path, *, dtype: str, head: Head) -> None:
    """Write the config of what was trained from the model in `source`; see `exported_config`."""
    config = read_object(source / "config.json")
    text = json.dumps(exported_config(config, dtype=dtype, head=head), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def exported_config(config: dict[str, Any], *, dtype: str, head: Head) -> dict[str, Any]:
    """Return a source's config as it holds for the export in the format `dtype`; a reward model's names the classifier.

    transformers 5 reads `dtype`, and `torch_dtype` where that is missing; older versions read the latter alone, so
    where the source has it, it is right too. Where the source came from does not hold of the export.
    """
    exported = {name: value for name, value in config.items() if name != "_name_or_path"}
    exported |= {name: dtype for name in ("dtype", "torch_dtype") if name == "dtype" or name in config}
    return as_scorer(exported) if head is Head.reward else exported


def model_files(folder: Path) -> Iterator[Path]:
    """List the files of a folder that are a model: its config, its weights in safetensors, its tokenizer."""
    return _matching(folder, ("config.json", *WEIGHTS, *EXTRAS))


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file() or path.is_symlink()}
    return iter(sorted(files))


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")


def _remove_model(doomed: Path, folder: Path) -> None:
    """Remove a folder that had been a model; what else was in it moves on, unless the name is taken there."""
    for file in (*model_files(doomed), *_matching(doomed, LICENSES)):
        file.unlink()
    for path in doomed.iterdir() if folder.is_dir() else ():
        if not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(doomed)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders atomically; return whether this system and file system can."""
    at_cwd = -100  # AT_FDCWD of renameat2(2)
    exchange = 2  # RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _flush(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk, so that they outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
