"""Datasets of the Hugging Face hub, by `datasets`, which keeps what it fetched as Arrow files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hybridflow.errors import LONGEST_SHOWN
from hybridflow.observe import terminal
from hybridflow.observe.download_progress import progress_told

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
OFFLINE = "HF_HUB_OFFLINE"


def is_hub_id(path: str) -> bool:
    """Tell whether a path may be the id of a dataset: `owner/name`, without the ending of a file."""
    return _ID.fullmatch(path) is not None and "/" in path and not re.search(r"\.(jsonl?|parquet|arrow|gz|zst)$", path)


def fetched(id: str, config: str | None, revision: str | None) -> dict[str, list[Path]]:
    """Return the Arrow files of each split of a dataset, fetched if need be.

    Raises ValueError, with the command that makes a folder of it, if it cannot be fetched.
    """
    try:
        from datasets import DatasetDict, load_dataset
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        terminal.complain(terminal.one_line(f"fetching {id} from the hub, unless it is there already"))
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id, repo_type="dataset")
        with progress_told(f"fetching {id}", folder), terminal.tamed():
            found = load_dataset(id, config, revision=revision)
    except Exception as error:  # of the network, of the hub, of a dataset that only code can read
        raise ValueError(_unreachable(id, revision, error)) from error
    assert isinstance(found, DatasetDict)
    return {str(split): [Path(entry["filename"]) for entry in part.cache_files] for split, part in found.items()}


def _unreachable(id: str, revision: str | None, error: Exception) -> str:
    folder = id.rpartition("/")[2]
    at = f" --revision {revision}" if revision else ""
    reason = " ".join(str(error).split())[:LONGEST_SHOWN] or type(error).__name__
    offline = f" ({OFFLINE} is set)" if os.environ.get(OFFLINE) else ""
    return (
        f"there is no file or folder {id}, and as a dataset of the hub it cannot be had{offline}: {reason}. Where "
        f"there is a network: `hf download {id}{at} --repo-type dataset --local-dir data/{folder}`; then give "
        f"path=data/{folder}"
    )
