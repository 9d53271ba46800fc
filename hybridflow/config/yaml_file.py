"""The one reading of a YAML file of settings, whoever wrote it: measured before it is built, and named if it is wrong.

To build a tree from a few hundred bytes can take hours (aliases of aliases) or end the interpreter's stack. So the file
is first read as events, which cannot; what is measured there is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasFileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from hybridflow.config import placement_file
from hybridflow.errors import ConfigError

MAX_BYTES = 4 * 2**20  # settings, not data: YAML of this size takes a minute to read
MAX_DEPTH = 50  # Hydra and OmegaConf go down it by recursion, several calls a level
MAX_ALIASED = 10_000  # values that aliases stand for, all together
MAX_DIGITS = 4300  # what Python turns into a number
_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*")


def load(file: Path) -> DictConfig:
    """Read the settings in a file; an empty one has none.

    Raises ConfigError naming the file and, where there is one, the line: it cannot be read, is no UTF-8, no YAML or no
    mapping, or would be too large once it is built.
    """
    return _built(file, checked(file))


def checked(file: Path) -> str:
    """Read a file whose content can be built; raises ConfigError as `load`."""
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # to open a pipe may take for ever
            raise ConfigError(f"{file} is no file: settings were expected")
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file}: {file.stat().st_size} bytes; settings have at most {MAX_BYTES}")
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (at byte {error.start}); YAML in UTF-8 was expected") from error
    measured = _Measured(file)
    with named(file):
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            measured.take(event)
    return text


def _built(file: Path, text: str) -> DictConfig:
    with named(file):
        tree = _parsed(text)
    assert isinstance(tree, DictConfig)  # `checked` has seen that it is a mapping
    return deepcopy(tree)


@lru_cache(maxsize=256)  # a composition reads twenty files, and a process composes many times
def _parsed(text: str) -> DictConfig | ListConfig:
    return OmegaConf.load(StringIO(text))


@dataclass
class _Measured:
    """Size of what a file describes, counted as its events come."""

    file: Path
    open: list[tuple[str | None, int]] = field(default_factory=list)  # anchor, and nodes before it
    anchors: dict[str, int] = field(default_factory=dict)  # nodes that an alias of it stands for
    nodes: int = 0
    aliased: int = 0

    def take(self, event: Event) -> None:
        """Count one event. Raises ConfigError with its line if the file goes too far."""
        if isinstance(event, NodeEvent):
            self._node(event)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = self.open.pop()
            if anchor is not None:
                self.anchors[anchor] = self.nodes - before

    def _node(self, event: NodeEvent) -> None:
        if (not self.open and isinstance(event, SequenceStartEvent)) or _is_text(event, self.nodes):
            self._refuse(event, "settings, as `key: value`, were expected at the top")
        if isinstance(event, AliasEvent):
            self._alias(event)
            return
        self.nodes += 1
        if isinstance(event, CollectionStartEvent):
            self.open.append((event.anchor, self.nodes))
            if len(self.open) > MAX_DEPTH:
                self._refuse(event, f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, ScalarEvent):
            if event.anchor is not None:
                self.anchors[event.anchor] = 1
            if event.implicit[0] and len(event.value) > MAX_DIGITS and _NUMBER.fullmatch(event.value):
                self._refuse(event, f"a number of {len(event.value)} digits")

    def _alias(self, event: AliasEvent) -> None:
        if any(anchor == event.anchor for anchor, _ in self.open):
            self._refuse(event, f"*{event.anchor} stands for what it is itself in")
        size = self.anchors.get(event.anchor, 1)
        self.nodes += size
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            self._refuse(event, f"its aliases stand for more than {MAX_ALIASED} values")

    def _refuse(self, event: Event, why: str) -> None:
        raise ConfigError(f"{self.file}:{event.start_mark.line + 1}: {why}")


def _is_text(event: NodeEvent, nodes: int) -> bool:
    """Tell whether the file is a text or a number; one that is empty, or null, has no settings."""
    return nodes == 0 and isinstance(event, ScalarEvent) and event.value.lower() not in ("", "~", "null")


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Turn what goes wrong with YAML into a ConfigError that names the file."""
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{file}{f':{mark.line + 1}' if mark else ''}: not readable as YAML: {message}") from error
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{file}: not readable as settings: {message}") from error


class FileConfigSource(HydrasFileConfigSource):
    """Hydra's reader of the files of a folder, for what `checked` has seen.

    For Hydra 1.3, which has no other place to look at a file before it is built, also in its own application. The name
    is Hydra's: its registry keeps the first of a name.
    """

    def is_config(self, config_path: str) -> bool:
        """Take a placement by its path too, from wherever it is."""
        file = placement_file.file_of(config_path)
        return super().is_config(config_path) or (file is not None and file.is_file())

    def load_config(self, config_path: str) -> ConfigResult:
        """Load as Hydra does. Raises ConfigError as `load`."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        by_path = placement_file.file_of(config_path)
        if by_path is not None and not file.is_file():
            file = by_path
        if not file.is_file():
            return super().load_config(config_path)
        text = checked(file)
        with named(file):
            header = self._get_header_dict(text[:512])
        if file is by_path:
            placement_file.check_package(file, header.get("package"))
            header["package"] = placement_file.ANYWHERE
        place = f"{self.scheme()}://{self.path}"
        return ConfigResult(config=_built(file, text), path=place, provider=self.provider, header=header)


SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
