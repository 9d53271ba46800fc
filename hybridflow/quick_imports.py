"""Imports of libraries that look, each time, at all that is installed, or import what nobody asks them for.

transformers 5.19 reads the list of files of every distribution and the source of all its models, some of it twice: more
than a second of computing in each process that imports it, ranks and controller alike. Here it finds the same, sooner.
With another version nothing is changed, and this goes away with one that no longer looks.
"""

from __future__ import annotations

import csv
import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TRANSFORMERS = "5.19.0"
LOOKS = "transformers.utils.import_utils"
NAME = re.compile(r"^Name: *(.+?)\s*$", re.MULTILINE)


def import_transformers() -> None:
    """Import transformers, before anybody else does."""
    if "transformers" in sys.modules:
        return
    with _quick_look():
        import transformers  # noqa: F401


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let modules count as not installed in the block, unless they have been imported."""
    hidden = [name for name in names if name not in sys.modules]
    missing: dict[str, Any] = dict.fromkeys(hidden)  # as `import` has it
    sys.modules.update(missing)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _quick_look() -> Iterator[None]:
    original = importlib.metadata.packages_distributions
    if sys.version_info[:2] == (3, 11):  # the next has another way to tell, which is no slower
        importlib.metadata.packages_distributions = packages_distributions
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)
        importlib.metadata.packages_distributions = original


class _Finder:
    """Finds the module of transformers that looks for others, and changes it once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == LOOKS else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_changed(module: ModuleType) -> None:
            load(module)
            if getattr(sys.modules["transformers"], "__version__", "") == TRANSFORMERS:
                _quicken(module)

        spec.loader.exec_module = load_changed  # type: ignore[method-assign]
        return spec


def _quicken(module: Any) -> None:
    """Let it look for names from where they stand on, and keep what it has found of each folder.

    It remembers the last 128 of 500 folders, so that the second time it looks at all of them again.
    """
    names = module.fetch__all__
    module.fetch__all__ = lambda content: names(last_declaration(content))
    module.create_import_structure_from_path = lru_cache(None)(module.create_import_structure_from_path.__wrapped__)


def last_declaration(content: str) -> str:
    """Return a source from its last line that begins with `__all__` on; empty if there is none."""
    start = content.rfind("\n__all__")
    if start >= 0:
        return content[start + 1 :]
    return content if content.startswith("__all__") else ""


def packages_distributions() -> dict[str, list[str]]:
    """Return what `importlib.metadata` of Python 3.11 does, from the lines of the files that it makes objects of."""
    found = defaultdict(list)
    for distribution in importlib.metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        for package in declared or _top_levels(distribution):
            found[package].append(_name(distribution))
    return dict(found)


def _top_levels(distribution: importlib.metadata.Distribution) -> set[str]:
    """Return the modules and packages that its files are in."""
    record = distribution.read_text("RECORD")
    if record is None:
        paths = [str(file) for file in distribution.files or ()]
    else:
        lines = record.splitlines()
        paths = [next(csv.reader([line]))[0] if line[:1] == '"' else line.partition(",")[0] for line in lines]
    return {path.partition("/")[0].removesuffix(".py") for path in paths if path.endswith(".py")}


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Return its name without parsing what else is told of it."""
    told = NAME.search(distribution.read_text("METADATA") or "")
    return told.group(1) if told else str(distribution.metadata["Name"])
