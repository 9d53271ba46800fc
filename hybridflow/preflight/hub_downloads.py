"""Models of the hub that a run names: brought into the hub's cache before anything starts."""

from __future__ import annotations

from pathlib import Path

from hybridflow.config.hub_ids import FILES, HubId, hub_id, local_folder
from hybridflow.observe import terminal
from hybridflow.observe.download_progress import progress_told


def fetched(path: str) -> str:
    """Return the folder of a model: of one of the hub that is not on this machine yet, after a download.

    Raises ValueError saying why it cannot be had, and by which command its folder is made elsewhere.
    """
    path = local_folder(path)
    wanted = hub_id(path)
    if wanted is None:
        return path
    try:
        _download(wanted)
    except Exception as error:  # of the client, of its HTTP library, of a disk
        why = " ".join([line for line in str(error).split("\n") if line][:2]) or type(error).__name__
        raise ValueError(f"{wanted} cannot be had from the hub: {why}; {_by_hand(wanted)}") from error
    folder = local_folder(path)
    if folder == path:
        raise ValueError(f"{wanted} has no config.json or no safetensors; give a model that has both")
    return folder


def _download(wanted: HubId) -> None:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE is set")
    terminal.complain(f"downloading {wanted} into {constants.HF_HUB_CACHE}")
    disable_progress_bars()
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=wanted.repository, repo_type="model")
    with progress_told(f"downloading {wanted}", folder), terminal.tamed():
        snapshot_download(wanted.repository, revision=wanted.revision, **FILES)


def _by_hand(wanted: HubId) -> str:
    name = wanted.repository.partition("/")[2]
    return (
        f"where there is a network, hf download {wanted.repository} --revision {wanted.revision} --local-dir "
        f"models/{name} makes a folder to give instead"
    )
