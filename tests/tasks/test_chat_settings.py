"""Settings of chats: a file of tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.config.schema import TaskConfig
from hybridflow.errors import ConfigError
from hybridflow.tasks.chat_settings import template_options


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "tools.json: No such file"),
        ("{}", r"tools.json: a list was expected, as \[…\]; it is {}"),
        ("[]", "a list of tools was expected"),
        ('["add"]', "a list of tools was expected.*it is .*'add'"),
        ("[{]", "tools.json:1: not JSON"),
    ],
)
def test_a_file_of_tools_that_holds_none_is_one_error(text: str | None, line: str, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"^task.tools: .*{line}"):
        template_options(TaskConfig(tools=str(file)))


def test_tools_of_a_file_go_to_the_template(tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text('[{"type": "function"}]')
    settings = TaskConfig(tools=str(file), chat_template_kwargs={"enable_thinking": False})
    assert template_options(settings) == {"enable_thinking": False, "tools": [{"type": "function"}]}
    with pytest.raises(ConfigError, match=r"task.tools: task.chat_template_kwargs.tools is given too"):
        template_options(TaskConfig(tools=str(file), chat_template_kwargs={"tools": []}))
