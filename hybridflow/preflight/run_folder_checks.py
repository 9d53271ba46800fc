"""Places of runs: is `run.name` a folder inside `run.root`, can it be written, is none of it this run's input?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import Config
from hybridflow.observe.run_folder import PARTS, of_another_kind

LONGEST_NAME = 255  # bytes of one part of a path, on every usual file system
# Of surrogates Python stands some, \udc80 to \udcff, for the bytes of a name that is no UTF-8.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")


def folder_of(config: Config) -> Path:
    """Return the run folder."""
    return Path(config.run.root) / config.run.name


def problems(config: Config) -> list[str]:
    """List what is wrong with `run.name` and `run.root`, as `key: what was found; what to do`. Reads folders."""
    return of_name(config.run.name) or list(_place(config))


def inputs_in_the_way(config: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """Yield inputs of a run among what it moves away at its start or writes at its end."""
    if problems(config):  # which are told themselves
        return
    own = folder_of(config).resolve()
    paths = {f"{role}.model.path": section(config, role).model.path for role in with_models(config, roles)}
    paths |= {f"task.options.{key}": value for key, value in _texts(config.task.options)}
    reported = set()
    for key, path in paths.items():
        part = _part_of(own, path)
        if part is not None and path not in reported:
            reported.add(path)
            yield (
                f"{key}: {path} is in the run folder of this run, which begins by moving {part} away; give it another "
                "run.name"
            )


def of_name(name: str) -> list[str]:
    """List what is wrong with a `run.name`, wherever its root is."""
    return list(_of_name(name))


def _of_name(name: str) -> Iterator[str]:
    expected = "expected the name of a folder inside run.root, such as mine or sums/7"
    parts = name.split("/")
    if CONTROL.search(name):
        yield f"run.name: {name!r} has a character that cannot be printed; {expected}"
    elif not name.strip() or all(part in ("", ".") for part in parts):
        yield f"run.name: {name!r} names no folder; {expected}"
    elif name.startswith("/") or ".." in parts:
        yield f"run.name: {name!r} would lead out of run.root; {expected}, and choose the place with run.root"
    elif any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        yield f"run.name: a part of it is longer than {LONGEST_NAME} bytes; {expected}"


def _place(config: Config) -> Iterator[str]:
    root = config.run.root
    folder = folder_of(config)
    if CONTROL.search(root):
        yield f"run.root: {root!r} has a character that cannot be printed; expected a folder"
        return
    try:
        above = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    except OSError as error:  # a name that is too long, a loop of links, a folder that may not be looked into
        yield f"run.root: {folder} cannot be reached: {error.strerror}; choose another"
        return
    key = "run.root" if above in (Path(root), *Path(root).parents) else "run.name"
    if not above.is_dir():
        yield f"{key}: {above} is {'a broken link' if above.is_symlink() else 'a file'}; a folder was expected"
    elif not os.access(above, os.W_OK | os.X_OK):
        yield f"{key}: {above} cannot be written; choose a place that can, as run.root=FOLDER"
    else:
        yield from _inside_of_another(root, PurePosixPath(config.run.name))
        for wrong in of_another_kind(folder):
            yield f"run.name: {wrong}; put back what was there, move it away, or choose another name"


def _inside_of_another(root: str, name: PurePosixPath) -> Iterator[str]:
    """Report a run folder among what another run has written, and will move away when it begins anew."""
    for outer in name.parents:
        part = name.relative_to(outer).parts[0]
        other = Path(root) / outer
        if outer.parts and part in PARTS and (other / "config.yaml").is_file():
            yield f"run.name: {name} is inside the {part} of the run {outer}; choose another name"


def _texts(options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in options.items():
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{below}", text) for below, text in _texts(value))


def _part_of(own: Path, path: str) -> str | None:
    """Return the part of this run folder in which there is something at that path."""
    try:
        inside = Path(path).resolve().relative_to(own).parts
        return inside[0] if inside and inside[0] in PARTS and Path(path).exists() else None
    except (OSError, ValueError, RuntimeError):  # no path, one that leads elsewhere, links that lead in a circle
        return None
