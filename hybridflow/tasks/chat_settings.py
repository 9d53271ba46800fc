"""The settings of a task that chats are made by, as its encoder takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridflow.config.schema import TaskConfig
from hybridflow.errors import ConfigError, shown
from hybridflow.json_file import read_list
from hybridflow.tasks.chat_template import ChatForm


def chat_form(settings: TaskConfig) -> ChatForm:
    """Return what a run makes of each prompt."""
    return ChatForm(settings.system_prompt, settings.as_chat, settings.prefill)


def template_options(settings: TaskConfig) -> dict[str, Any]:
    """Return the variables of the chat template, with the tools of a file. Raises ConfigError if it holds none."""
    options = dict(settings.chat_template_kwargs)
    if not settings.tools:
        return options
    if "tools" in options:
        raise ConfigError("task.tools: task.chat_template_kwargs.tools is given too; leave one of them out")
    try:
        tools = read_list(Path(settings.tools).expanduser())
    except ValueError as error:
        raise ConfigError(f"task.tools: {error}") from error
    if not tools or not all(isinstance(tool, dict) for tool in tools):
        raise ConfigError(
            f'task.tools: {settings.tools}: a list of tools was expected, as [{{"type": "function", "function": …}}]; '
            f"it is {shown(tools)}"
        )
    return options | {"tools": tools}
