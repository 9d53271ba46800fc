"""Names of registered components, read from the source of losses: to import their registries takes torch."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from hybridflow.registry import Registry

MODULES = {
    "advantages": "advantages",
    "aggregations": "aggregations",
    "corrections": "corrections",
    "kl_controllers": "kl_controllers",
    "kl_estimators": "kl_estimators",
    "pair_losses": "preference_losses",
    "policy_losses": "policy_losses",
    "reward_shapings": "reward_shapings",
    "rollout_filters": "rollout_filters",
}
"""Registries of components that settings name, and the module of `losses` that each stands in."""


def component_names(registry: str) -> list[str]:
    """List the names of a registry, ours and those of plugins, which have imported it; no torch is imported for it."""
    name = _module(registry)
    if name in sys.modules:
        return list(getattr(sys.modules[name], registry))
    sources = sorted(Path(__file__).parent.glob("*.py"))
    registered = re.compile(rf'^@{registry}\.register\("(\w+)"', re.MULTILINE)
    return sorted(found for file in sources for found in registered.findall(file.read_text(encoding="utf-8")))


def registry_of(registry: str) -> Registry[Any]:
    """Import a registry of that name, and torch with it."""
    found: Registry[Any] = getattr(import_module(_module(registry)), registry)
    return found


def _module(registry: str) -> str:
    return f"hybridflow.losses.{MODULES[registry]}"
