"""The environment that settings name: is it registered, does it take these options, and can its conversations go on?"""

from __future__ import annotations

from collections.abc import Iterator

from hybridflow.config.schema import Config, EnvironmentConfig, RolloutRecovery
from hybridflow.environments.conversation_settings import TOOL
from hybridflow.environments.environment import environments, make
from hybridflow.environments.tool_calls import find_format
from hybridflow.environments.turn_renderer import TurnRenderer
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.preflight import component_checks
from hybridflow.tasks import Task
from hybridflow.tasks.chosen_graders import asked
from hybridflow.tasks.grader_registry import options_shell

READERS = ("environment", "environment_turns")  # graders that read what an environment gave

LOOKED_AT = 64  # first rows of a split: a mixture's sources take turns


def problems(config: Config) -> Iterator[str]:
    """Yield what is wrong with the environment, as `key: what was found; what to do`."""
    own = config.environment
    if not own.name:
        if own != EnvironmentConfig():
            yield (
                "environment.name: nothing given, so the rest of `environment` does nothing; name one of "
                f"{', '.join(environments)}"
            )
        for name in asked(config.reward):
            if name in READERS:
                yield f"reward.grader: {name} reads what an environment gives, and there is none; set environment.name"
        return
    if own.name not in environments:
        yield from component_checks.unknown_name("environment.name", environments, own.name)
        return
    shell = options_shell(environments.get(own.name))
    wrong = list(component_checks.wrong_options("environment", own.name, shell, own.options))
    if not wrong:
        try:
            make(own.name, own.options)
        except HybridFlowError as error:
            wrong = [f"environment.options: {error}"]
    yield from wrong
    if config.rollout.recovery is RolloutRecovery.durable:
        yield (
            "rollout.recovery: durable keeps responses of one turn, and with environment.name rows are conversations, "
            "which are in no journal; set it to exact"
        )
    limit = config.rollout.max_response_tokens
    if own.max_turn_tokens > limit:
        yield (
            f"environment.max_turn_tokens: {own.max_turn_tokens} given, more than rollout.max_response_tokens = "
            f"{limit} of a whole conversation; lower the one or raise the other"
        )


def warnings(config: Config) -> Iterator[str]:
    """Yield what the environment gives in vain."""
    name = config.environment.name
    graders = asked(config.reward)
    if name and graders and not {*graders, *asked(config.cost)} & {*READERS}:
        yield (
            f"environment.name: rewards that {name} gives are not learned from, as reward.grader is "
            f"{', '.join(graders)}; with reward=environment they are"
        )


def check_template(config: Config, task: Task) -> None:
    """Raise ConfigError if conversations of this task's prompts cannot go on without a change of earlier tokens."""
    name = config.environment.name
    if not name or config.environment.max_turns == 1:
        return
    roles = environments.get(name).roles
    for chat in sorted(_chats(task)):
        found = TurnRenderer(task.encoder, chat=chat).problem(roles, keep_turns=config.environment.keep_turns)
        if not found and TOOL in roles and not chat:
            raise ConfigError(
                f"environment.name: {name} has tools, which are called in chats, but prompts of task "
                f"{config.task.name} are texts; give chats, or set task.as_chat=true if the model has a chat template"
            )
        if not found and TOOL in roles:
            found = _no_calls(task)
        if not found:
            continue
        raise ConfigError(
            f"environment.name: {name} cannot be used with the chat template of {config.actor.model.path}: {found}; "
            "give the model's tokenizer a template that keeps earlier turns as they are, or choose another by "
            "task.chat_template_kwargs, or set environment.keep_turns=true if chats may be other than the template's"
        )


def _chats(task: Task) -> set[bool]:
    """Return whether prompts are chats; both if some are and some are not, as those of a mixture's sources may be."""
    return {
        not isinstance(task.chat_form.apply(task.example(split, row).prompt), str)
        for split in ("train", "held_out")
        for row in range(min(task.size(split), LOOKED_AT))
    }


def _no_calls(task: Task) -> str | None:
    """Say why the policy's calls cannot be read; None: they can."""
    try:
        find_format(task.encoder.template)
    except ValueError as error:
        return str(error)
    return None
