"""Environments that settings name: registered, with options that they take, on a template that conversations fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from hybridflow.config import compose
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError
from hybridflow.preflight.environment_checks import check_template, warnings
from hybridflow.tasks import build
from tests.preflight.test_grader_checks import told
from tests.tasks.chat_templates import CHATML, QWEN3, build_chat_tokenizer

COMPOSED = compose.compose("train", ["experiment=guess"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("environment: {name: gess}", "environment.name: no environment is named 'gess'; did you mean 'guess'?"),
        ("environment: {options: {hihger: x}}", "environment.options.hihger: no such option; did you mean 'higher'?"),
        ("environment: {name: '', max_turns: 3}", "environment.name: nothing given, so the rest of `environment` does"),
        (
            "environment: {max_turn_tokens: 9}",
            "environment.max_turn_tokens: 9 given, more than rollout.max_response_tokens = 8",
        ),
        ("rollout: {recovery: durable}", "rollout.recovery: durable keeps responses of one turn"),
        (
            "environment: {name: graded, options: {higher: null, lower: null, no_number: null, grader: exat}}",
            "environment.options: environment 'graded' cannot be made with these options: no grader is named 'exat'",
        ),
        (
            "environment: {name: graded, options: {higher: null, lower: null, no_number: null, grader: "
            "environment_turns}}",
            "environment.options: environment 'graded' cannot be made with these options: grader 'environment_turns' "
            "gives values of tokens",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(line: str, problem: str) -> None:
    assert told(composed=COMPOSED) == []
    found = told(line, composed=COMPOSED)
    assert any(one.startswith(problem) for one in found), found


def test_a_grader_of_environments_wants_one() -> None:
    found = told("environment: {name: ''}", composed=COMPOSED)
    assert any(line.startswith("reward.grader: environment reads what an environment gives") for line in found), found


@pytest.mark.parametrize(("graders", "warned"), [({}, False), ({"exact": 1.0}, True), ({"environment": 1.0}, False)])
def test_rewards_that_nobody_reads_are_told(graders: dict[str, float], warned: bool) -> None:
    config: Config = OmegaConf.to_object(COMPOSED.tree)  # type: ignore[assignment]
    config.reward.graders = graders
    found = list(warnings(config))
    assert found == [
        "environment.name: rewards that guess gives are not learned from, as reward.grader is exact; "
        "with reward=environment they are"
    ] * int(warned)


def test_tools_want_chats() -> None:
    config: Config = OmegaConf.to_object(COMPOSED.tree)  # type: ignore[assignment]
    config.environment.name = "tools"
    with pytest.raises(ConfigError, match=r"tools has tools, which are called in chats, but prompts of task guess are"):
        check_template(config, build("guess", build_chat_tokenizer(CHATML), {}))


def test_a_template_that_forgets_is_refused_with_the_task() -> None:
    config: Config = OmegaConf.to_object(COMPOSED.tree)  # type: ignore[assignment]
    for template, refused in ((CHATML, False), (QWEN3, True)):
        task = build("guess", build_chat_tokenizer(template), {})
        task.chat_form = type(task.chat_form)(as_chat=True)
        if not refused:
            check_template(config, task)
            continue
        with pytest.raises(ConfigError, match=r"environment.name: guess cannot be used with .*'user': .* changes what"):
            check_template(config, task)
        config.environment.max_turns = 1
        check_template(config, task)


def test_so_it_is_where_only_some_prompts_are_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Config = OmegaConf.to_object(COMPOSED.tree)  # type: ignore[assignment]
    task = build("guess", build_chat_tokenizer(QWEN3), {})
    check_template(config, task)
    chat = replace(task.example("train", 0), prompt=[{"role": "user", "content": "12"}])
    text = task.example("train", 0)
    monkeypatch.setattr(task, "example", lambda split, number: chat if number == 1 else text)
    with pytest.raises(ConfigError, match="changes what came before"):
        check_template(config, task)
