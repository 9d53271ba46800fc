"""Models of the hub by their ids, `owner/name@revision`, and the folder of the hub's cache that has one.

The revision is a part of it: a name without one looks like a folder `models/mine`, and a run could not be made again.
Nothing is downloaded here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = r"[A-Za-z0-9][\w.-]*"
ID = re.compile(rf"({NAME}/{NAME})@({NAME}(?:/{NAME})*)")
INDEX = "model.safetensors.index.json"
# Weights, settings, tokenizers and chat templates; never code. Nothing of folders inside (onnx/, runs/, original/).
FILES: dict[str, Any] = {
    "allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"],
    "ignore_patterns": ["*/*"],
}


@dataclass(frozen=True)
class HubId:
    """A model of the hub: its repository, and a branch, a tag or a commit of it."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"


def hub_id(path: str) -> HubId | None:
    """Read a path as a model of the hub; None if it is none, or a folder of that name is there."""
    found = ID.fullmatch(path)
    return HubId(found[1], found[2]) if found and not Path(path).exists() else None


def local_folder(path: str) -> str:
    """Return the folder of the hub's cache that has all of a model of the hub; any other path as it is."""
    wanted = hub_id(path)
    if wanted is None:
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(wanted.repository, revision=wanted.revision, local_files_only=True, **FILES))
    except (LocalEntryNotFoundError, ValueError):  # ValueError: a name that no repository can have
        return path
    return str(folder) if _whole(folder) else path


def _whole(folder: Path) -> bool:
    """Tell whether the settings and all weights are there: a download may have been interrupted."""
    if not (folder / "config.json").is_file():
        return False
    if not (folder / INDEX).is_file():
        return any(folder.glob("*.safetensors"))
    try:
        files = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return False
    return all((folder / str(file)).is_file() for file in files)
