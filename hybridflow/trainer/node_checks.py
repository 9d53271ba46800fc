"""What every node of a joined cluster must have is looked for there, before a rank builds anything of it.

Ranks read models from folders and write into the run folder by the same paths as this process: so each node is asked
for what it sees there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config
from hybridflow.controller import ResourcePool
from hybridflow.errors import ConfigError
from hybridflow.models.folder_digest import file_digests
from hybridflow.observe.run_lock import LOCK
from hybridflow.placement import Placement
from hybridflow.preflight.run_folder_checks import folder_of
from hybridflow.runtime.messages import NodeView

SHOWN = 3  # files of a folder, and nodes
HELP = "(docs/cluster.md)"


def check(config: Config, placement: Placement, pools: Mapping[str, ResourcePool]) -> None:
    """Ask the nodes of pools that have just been started. Raises ConfigError with all that is missing there."""
    lock = (folder_of(config) / LOCK).absolute()
    # Without a lock nothing is written, as where a script builds roles.
    mark = lock.read_text(encoding="utf-8", errors="replace") if lock.is_file() else None
    lines: dict[str, list[str]] = {}
    digests = cache(file_digests)  # of folders here, which several pools read
    for name, pool in pools.items():
        here = [role.name for role in placement.roles if role.pool == name]
        folders = _folders(config, here)
        own = {folder: digests(folder) for folder in folders.values()}
        for address, view in pool.node_views(list(own), str(lock)):
            for line in _problems(folders, own, view, mark, folder_of(config)):
                lines.setdefault(line, []).append(address)
    if lines:
        raise ConfigError("\n".join(f"{line.format(node=_nodes(nodes))} {HELP}" for line, nodes in lines.items()))


def _folders(config: Config, placed: Iterable[str]) -> dict[str, str]:
    """Return by setting the model folders that ranks of a pool read; all of them read the actor's tokenizer."""
    roles = with_models(config, tuple(placed))
    folders = {"actor.model.path": config.actor.model.path}
    folders |= {f"{role}.model.path": section(config, role).model.path for role in roles}
    return {key: folder for key, folder in folders.items() if folder}


def _problems(
    folders: Mapping[str, str], own: Mapping[str, Mapping[str, str]], view: NodeView, mark: str | None, run: Path
) -> Iterator[str]:
    """Yield what a node sees otherwise than this process, with `{node}` in the place of its name."""
    told = set()
    for key, folder in folders.items():
        there = view.folders.get(folder, {})
        if folder in told or there == own[folder]:
            continue
        told.add(folder)
        if not there:
            yield (
                f"{key}: {_plain(folder)} is no model folder on {{node}}, where ranks are to read it; put it on a disk "
                "that all nodes share, or copy it to the same path on each"
            )
            continue
        other = sorted(name for name in {*there, *own[folder]} if there.get(name) != own[folder].get(name))
        names = ", ".join(map(_plain, other[:SHOWN])) + (", …" if len(other) > SHOWN else "")
        yield f"{key}: {_plain(folder)} on {{node}} is not what it is here: {names} differ; copy it there anew"
    if mark is not None and view.mark != mark:
        yield (
            f"run.root: {_plain(str(run))} on {{node}} is not the folder that it is here, and ranks write checkpoints, "
            "models and rows into it; put run.root on a disk that all nodes share"
        )
    elif mark is not None and not view.writes:
        yield f"run.root: ranks on {{node}} may not write into {_plain(str(run))}; give their user the right to"


def _nodes(addresses: list[str]) -> str:
    shown = ", ".join(addresses[:SHOWN])
    more = len(addresses) - SHOWN
    return f"node{'s' if len(addresses) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


def _plain(text: str) -> str:
    """Return a name that `str.format` leaves as it is."""
    return text.replace("{", "{{").replace("}", "}}")
