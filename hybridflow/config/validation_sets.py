"""Sets of `trainer.validation_sets`: settings of tasks by name, checked as the section `task` is.

What a set does not say of its prompts' form, and of rows that cannot be used, is as `task` has it: one model is asked
in one way. They are untyped in the schema, as OmegaConf takes no typed value of a dictionary from the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridflow.config.schema import Config, CurriculumConfig, TaskConfig
from hybridflow.errors import shown

NAME = re.compile(r"[\w-]+", re.ASCII)


def validation_sets(config: Config) -> dict[str, TaskConfig]:
    """Return the sets that are sound, by name."""
    read = {name: _read(given, config.task) for name, given in config.trainer.validation_sets.items()}
    return {name: settings for name, settings in read.items() if isinstance(settings, TaskConfig)}


def problems(config: Config) -> Iterator[str]:
    """Yield what is wrong with the sets, as `key: what was found; what to do`."""
    for name, given in config.trainer.validation_sets.items():
        if not NAME.fullmatch(name):
            yield (
                f"trainer.validation_sets: {name!r} is to be a part of metrics' names and a folder; letters, digits, "
                "- and _ were expected"
            )
        elif isinstance(wrong := _read(given, config.task), str):
            yield f"trainer.validation_sets.{name}: {wrong}"


def _read(given: Any, task: TaskConfig) -> TaskConfig | str:
    """Return the settings of a set, or why they are none.

    Args:
        task: the run's own, whose rows, options and order are not a set's.
    """
    if not isinstance(given, dict) or "name" not in given:
        return f"{shown(given)} given; settings of a task were expected, such as {{name: addition}}"
    try:
        alike = replace(task, name=MISSING, options={}, curriculum=CurriculumConfig())
        tree = OmegaConf.merge(OmegaConf.structured(alike), given)
        return cast(TaskConfig, OmegaConf.to_object(tree))
    except OmegaConfBaseException as error:
        return f"{error.full_key or shown(given)}: {str(error).splitlines()[0]}"
