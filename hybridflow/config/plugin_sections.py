"""Which sections of the settings a plugin brings, where others have been imported in this process before it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import resolve_name
from types import ModuleType

from hybridflow.config import sections

_recorded: dict[str, set[str]] = {}  # by plugin, the sections that were added while it was imported


def record(plugin: str, names: set[str]) -> None:
    """Note which sections were added while a plugin was imported."""
    _recorded.setdefault(plugin, set()).update(names)


@contextmanager
def alone(plugins: Sequence[str]) -> Iterator[None]:
    """Let the settings have, meanwhile, the sections of these plugins only, as in a process that imports no others."""
    modules = _imported_by(plugins)
    brought = {name for plugin in plugins for name in _recorded.get(plugin, ())}
    # Of a module that two plugins import only the first was seen to bring its sections.
    brought |= {name for name, settings in sections.classes().items() if settings.__module__ in modules}
    with sections.only(brought):
        yield


def _imported_by(plugins: Sequence[str]) -> set[str]:
    """Return the names of these modules and of those that they import, directly or not, and that are users'."""
    found: set[str] = set()
    left = [*plugins]
    while left:
        name = left.pop()
        module = sys.modules.get(name)
        if module is None or name in found or not _is_users(module):
            continue
        found.add(name)
        left += [*_imports(module), name.rpartition(".")[0]]
    return found


def _is_users(module: ModuleType) -> bool:
    top = module.__name__.partition(".")[0]
    ours = top == "hybridflow" or top in sys.stdlib_module_names
    own_packages = {plugin.partition(".")[0] for plugin in _recorded}
    return not ours and (top in own_packages or "site-packages" not in str(getattr(module, "__file__", "")))


def _imports(module: ModuleType) -> Iterator[str]:
    """Yield the names that a module's text imports: modules, and what may be one."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # it has no text
        return
    package = getattr(module, "__package__", None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
