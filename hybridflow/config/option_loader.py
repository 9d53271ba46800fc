"""Hydra's loader of options, which keeps the files that it composed, and what they came to.

A process may compose the same options many times, for the jobs of a sweep or the stages of `hybridflow rlhf`, and
nearly all of the time goes into them, not into the single values that differ. So the tree of a choice of options is
kept, as it is before the values on the command line are set, and copied for the next composition.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra._internal import hydra as application
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.structured_config_source import (
    StructuredConfigSource as HydrasStructuredConfigSource,
)
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from hybridflow.config import placement_file
from hybridflow.config.provenance import Layer, Origins

SEARCH_PATH = "hydra.searchpath"
MODE = "hydra.mode"  # Hydra gives it to each job of a sweep
MAX_KEPT = 64  # choices of options; each takes some hundred kilobytes
MAX_FILES = 1000  # in the folders of options, looked at each time; of more nothing is kept


@dataclass(frozen=True)
class Kept:
    """Composition of a choice of options.

    Attributes:
        tree: all of it.
        settings: without Hydra's own section.
        defaults: the files that it was composed of.
        store: what was in Hydra's store then; while it is held, no other object has its identity.
    """

    tree: DictConfig
    settings: DictConfig
    defaults: Sequence[ResultDefault]
    store: Sequence[object]


_kept: dict[Hashable, Kept] = {}


class OptionLoader(ConfigLoaderImpl):
    """Loader for Hydra's application and, with the folders of options given, for `hydra.compose`.

    Of a composition for `hydra.compose`, which drops it, Hydra's own section is left out.
    """

    def __init__(self, config_search_path: ConfigSearchPath, folders: Sequence[Path] | None = None) -> None:
        super().__init__(config_search_path)
        self._defaults: Sequence[ResultDefault] = []
        self._bare = folders is not None
        self._searched = [(str(entry.provider), str(entry.path)) for entry in config_search_path.get_path()]
        self._folders = folders or [
            Path(path) for _, entry in self._searched if "://" not in (path := entry.removeprefix("file://"))
        ]

    def origins(self, overrides: Sequence[Override]) -> Origins:
        """Return where the values of the last composition come from; of one that failed, as far as it went."""
        layers = [_layer(entry.config_path, entry.package, self._folders) for entry in self._defaults]
        return Origins([layer for layer in layers if layer], overrides)

    def _load_configuration_impl(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **options: Any
    ) -> DictConfig:
        parsed, repo = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        files = list(islice(_files(self._folders), MAX_FILES + 1))
        if len(files) > MAX_FILES or any(map(self._is_more, parsed)):
            return super()._load_configuration_impl(config_name, overrides, run_mode, *args, **options)
        choices = [str(override.input_line) for override in parsed if _chooses(override, repo)]
        files += filter(None, map(_stat_of_placement, choices))
        store = list(_nodes(ConfigStore.instance().repo))
        key = (
            JobRuntime.instance().get("name"),
            config_name,
            *choices,
            *self._searched,
            *files,
            *map(id, store),
        )
        if key not in _kept:
            try:
                tree = super()._load_configuration_impl(config_name, choices, RunMode.RUN, *args, **options)
            except Exception:
                if run_mode is RunMode.RUN:
                    raise
                # Of a sweep as a whole an option may be missing.
                return super()._load_configuration_impl(config_name, overrides, run_mode, *args, **options)
            _keep(key, tree, self._defaults, store)
        self._defaults = _kept[key].defaults
        tree = deepcopy(_kept[key].settings if self._bare else _kept[key].tree)
        self._apply_overrides_to_config([override for override in parsed if not _chooses(override, repo)], tree)
        if not self._bare:
            _describe(tree.hydra, parsed)
        return tree

    def _is_more(self, override: Override) -> bool:
        """Tell whether it is more than a setting: of Hydra's, or of a sweep."""
        key = override.key_or_group
        known = SEARCH_PATH if self._bare else MODE
        return (key.startswith("hydra") and key != known) or override.is_sweep_override()

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        last = [entry for entry in defaults if placement_file.comes_last(entry.config_path, entry.package)]
        defaults = [*(entry for entry in defaults if entry not in last), *last]
        self._defaults = defaults
        return super()._compose_config_from_defaults_list(defaults, repo)


class StructuredConfigSource(HydrasStructuredConfigSource):
    """Hydra's reader of its store, copied without the store: Hydra copies its readers for each thing that it looks up.

    For Hydra 1.3; the name is Hydra's, which asks for it.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> StructuredConfigSource:
        return copy(self)


SourcesRegistry.instance().types[StructuredConfigSource.scheme()] = StructuredConfigSource


@contextmanager
def in_hydras_place() -> Iterator[None]:
    """Let Hydra's application load by this loader meanwhile; for Hydra 1.3, which has no way to name one."""
    module: Any = application
    hydras_own = module.ConfigLoaderImpl
    module.ConfigLoaderImpl = OptionLoader
    try:
        yield
    finally:
        module.ConfigLoaderImpl = hydras_own


def _keep(key: Hashable, tree: DictConfig, defaults: Sequence[ResultDefault], store: Sequence[object]) -> None:
    settings = deepcopy(tree)
    with open_dict(settings):
        del settings["hydra"]
    if len(_kept) >= MAX_KEPT:
        del _kept[next(iter(_kept))]
    _kept[key] = Kept(tree, settings, defaults, store)


def _describe(section: DictConfig, overrides: Sequence[Override]) -> None:
    """Write what Hydra's section says of these overrides, as Hydra does."""
    ours = [override for override in overrides if not override.is_hydra_override()]
    section.overrides.task = [override.input_line for override in ours]
    section.overrides.hydra = [override.input_line for override in overrides if override.is_hydra_override()]
    section.runtime.cwd = os.getcwd()
    names = section.job.config.override_dirname
    section.job.override_dirname = get_overrides_dirname(ours, names.exclude_keys, names.item_sep, names.kv_sep)


def _chooses(override: Override, repo: CachingConfigRepository) -> bool:
    """Tell as Hydra does whether it chooses options, or where they are, and is no value that is set afterwards."""
    key = override.key_or_group
    return key == SEARCH_PATH or (repo.group_exists(key) and not isinstance(override.value(), dict))


def _nodes(store: dict[str, Any]) -> Iterator[object]:
    """Yield what is in Hydra's store."""
    for entry in store.values():
        if isinstance(entry, dict):
            yield from _nodes(entry)
        else:
            yield entry


def _files(folders: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Yield the files of options as they are now, and their folders."""
    for folder in folders:
        for above, _, names in os.walk(folder, followlinks=True):
            yield above, 0, 0
            for name in names:
                path = os.path.join(above, name)
                try:
                    file = os.stat(path)
                except OSError:  # a link to nowhere
                    continue
                yield path, file.st_mtime_ns, file.st_size


def _stat_of_placement(choice: str) -> tuple[str, int, int] | None:
    """Return the state of the file that a choice names by its path, if it is a placement in one."""
    path = placement_file.file_of(choice.lstrip("+").replace("=", "/", 1))
    if path is None or not path.is_file():
        return None
    file = path.stat()
    return str(path.absolute()), file.st_mtime_ns, file.st_size


def _layer(path: str | None, package: str | None, folders: Sequence[Path]) -> Layer | None:
    """Return the file of an entry of the defaults list; None for what is no file (the schema, Hydra's own)."""
    by_path = placement_file.file_of(path or "")
    names = [folder / f"{path}.yaml" for folder in folders] if by_path is None else [by_path]
    files = [file for file in names if file.is_file()]
    return Layer(files[0], "" if package in (None, "_global_") else str(package)) if files else None
