"""Modules of the user, imported before composing: they may register parts, and schemas that it then needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hybridflow.bounded_code import at_most
from hybridflow.config import plugin_sections, sections, yaml_file
from hybridflow.config.compose import parse, search_dirs
from hybridflow.errors import ConfigError, shown
from hybridflow.registry import import_plugins

IMPORT_S = 300.0  # vLLM and all that it imports may come from the disk of another machine
LONGER = "HYBRIDFLOW_IMPORT_S"  # seconds that the import of a plugin may take, instead: settings are not read before it
HINT = f"; {LONGER}=SECONDS gives it longer"
MAX_NAME = 250  # characters of a name of an option: of a file without its ending


def named(config_name: str, overrides: Sequence[str], config_dir: str | Path | None = None) -> list[str]:
    """Return the value of `plugins`: from the overrides, else from the files of the options that these choose.

    A file that those files include is not looked into; its plugins are imported after composing.

    Raises:
        ConfigError: an override cannot be read, or `plugins` is not a list of module names.
    """
    parsed = parse(overrides)
    for override in reversed(parsed):
        if override.key_or_group == "plugins" and not override.is_sweep_override():
            return checked(override.value(), override.input_line or "plugins")
    modules: list[str] = []
    for file in _files(config_name, parsed, search_dirs(parsed, config_dir)):
        tree = OmegaConf.to_container(yaml_file.load(file))
        assert isinstance(tree, dict)
        modules += checked(tree.get("plugins") or [], str(file))
    return list(dict.fromkeys(modules))


def _files(config_name: str, parsed: Sequence[Override], folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the primary file and those of `group=option` overrides, as far as they exist."""
    names = [config_name]
    names += [f"{o.key_or_group}/{o.value()}" for o in parsed if _may_choose(o)]
    for name in names:
        candidates = (folder / f"{name}.yaml" for folder in folders)
        yield from [file for file in candidates if file.is_file()][:1]


def _may_choose(override: Override) -> bool:
    """Tell whether it may be `group=option`; the value of a setting may be a text of any length."""
    value = override.value()
    return "." not in override.key_or_group and isinstance(value, str) and len(value) < MAX_NAME and value.isprintable()


def checked(value: object, place: str) -> list[str]:
    """Return the value of `plugins`. Raises ConfigError, with the place, if it is no list of names."""
    if not isinstance(value, list) or not all(isinstance(module, str) for module in value):
        raise ConfigError(
            f"plugins: a list of module names was expected, as plugins=[my_module], not {value!r} ({place})"
        )
    return value


def load(modules: Sequence[str]) -> None:
    """Import the user's modules, from the working directory too. Raises ConfigError with the place in the module.

    One that takes longer than IMPORT_S, or what the environment has under that name, may take for ever.
    """
    seconds = _import_s() if modules else IMPORT_S
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in modules:
        before = {*sections.added()}
        try:
            with at_most(seconds):
                import_plugins([module])
        except TimeoutError as error:  # the module caught it, and went on without what it was importing
            raise ConfigError(f"plugins: cannot import {module!r}: {error}{HINT}") from error
        except ImportError as error:
            raise ConfigError(f"{error}{HINT if isinstance(error.__cause__, TimeoutError) else ''}") from error
        plugin_sections.record(module, {*sections.added()} - before)


def _import_s() -> float:
    """Return the seconds that a module may take. Raises ConfigError if the environment has something else for it."""
    given = os.environ.get(LONGER, str(IMPORT_S))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:  # a day, and no alarm for ever
        raise ConfigError(
            f"{LONGER}: {shown(given)} given in the environment, seconds above 0 and up to 86400 expected"
        )
    return seconds
