"""Recipes: options of the group `algorithm` that are another algorithm's flow with settings of their own.

A recipe is a file with its paper, formula and defaults in words, the flow under `name` and its own under `recipe`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hybridflow.config.schema import Config
from hybridflow.former_names import FLOWS


def called(config: Config) -> str:
    """Return what a user knows the algorithm of these settings by."""
    return config.algorithm.recipe or config.algorithm.name


def former_names(name: str) -> Iterator[str]:
    """Yield the problem of an `algorithm.name` that is a recipe's, and what to write in its place."""
    if name in FLOWS:
        flow = FLOWS[name]
        yield (
            f"algorithm.name: {name} is a recipe, which is the flow {flow} with settings of its own: choose it by "
            f"algorithm={name}; or, in a file that has all of its settings, write name: {flow}"
        )
