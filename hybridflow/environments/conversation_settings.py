"""Settings of conversations: the chat template's variables, with the tools of the environment."""

from __future__ import annotations

from typing import Any

from hybridflow.config.schema import EnvironmentConfig, TaskConfig
from hybridflow.environments.environment import make
from hybridflow.tasks.chat_settings import template_options

TOOL = "tool"  # the role of messages that calls are answered with


def conversation_options(task: TaskConfig, environment: EnvironmentConfig) -> dict[str, Any]:
    """Return the variables of the chat template; `tools` are those of the environment unless the task has its own.

    Raises ConfigError as `template_options`, and as `make`.
    """
    options = template_options(task)
    specs = make(environment.name, environment.options).specs if environment.name else []
    return {"tools": specs, **options} if specs else options
