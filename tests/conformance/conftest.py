"""Modules of a user's, and registries that forget them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybridflow.config import sections
from hybridflow.conformance.discovery import REGISTRIES, Registered, ours, registered
from hybridflow.registry import import_plugins

FindIn = Callable[[str], Registered]


@contextmanager
def forgetting(module: str) -> Iterator[None]:
    """What a user's module registers meanwhile is taken out again; what is ours stays, as its modules do."""
    before = {registry.kind: set(registry.registered) for registry in REGISTRIES}
    known = {*sections._added}
    try:
        yield
    finally:
        sys.modules.pop(module, None)
        for section in {*sections._added} - known:
            del sections._added[section]
        for registry in REGISTRIES:
            for name, part in registry.registered.items():
                if name not in before[registry.kind] and not ours(part):
                    del registry._components[name]


@pytest.fixture
def find_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FindIn]:
    """`find_in(source)`: what a module of that text, `my_module`, registers."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def find(source: str) -> Registered:
        (tmp_path / "my_module.py").write_text(source, encoding="utf-8")
        return registered(lambda: import_plugins(["my_module"]))

    with forgetting("my_module"):
        yield find
