"""Environment: the other side of a conversation with the policy, and what passes between the two.

An environment is a class; each conversation has an object of its own, made with the options of the settings:

    @environments.register("echo")
    class Echo(Environment):
        def __init__(self, *, times: int = 2) -> None:
            self.times = times

        async def step(self, action: Action) -> Observation:
            self.times -= 1
            return Observation(action.text, reward=len(action.text), done=not self.times)

It runs in a process beside the rank that generates, with many others in turns, so it awaits what takes time. `reset`
and `step` may be plain functions too, each of which then runs in a thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hybridflow.environments.tool_calls import Call
from hybridflow.errors import HybridFlowError, shown
from hybridflow.options import effective_options, faults
from hybridflow.registry import Registry
from hybridflow.tasks.chat_messages import Message, checked
from hybridflow.tasks.chat_template import MOST_CHARACTERS
from hybridflow.tasks.grader_registry import options_shell
from hybridflow.tasks.grades import number

OWN_METRICS = frozenset({"turns", "failed_share"})
"""Names under `environment/` that are measured of every environment."""


@dataclass(frozen=True)
class Question:
    """Row of a task that a conversation begins with, and what is known of it.

    Attributes:
        prompt: its text, without special tokens.
        answer: the known answer, a text.
        messages: the prompt as a chat, if it is one.
        metadata: other fields of the row, as the task gave them.
        source: the name of where the row came from, or "".
        sample_id: the name of the question.
        seed: of whatever the environment draws at random: other copies of the question have others, and a run that is
            repeated has the same.
    """

    prompt: str
    answer: str = ""
    messages: Sequence[Message] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    sample_id: int | str = ""
    seed: int = 0


@dataclass(frozen=True)
class Action:
    """Turn of the policy.

    Attributes:
        text: what it wrote, without special tokens.
        raw_text: with special tokens.
        turn: its number in the conversation, from 0.
        tokens: how many it has.
        finish_reason: why the turn ended: `end`, `stop` or `length`; after `length` there is no other turn.
        calls: of functions, as the chat template has them written; only of an environment with the role `tool`.
        beside_calls: what it wrote before them.
        last: whatever is answered, there is no other turn: it was cut, or the policy has had all its turns.
    """

    text: str
    raw_text: str = ""
    turn: int = 0
    tokens: int = 0
    finish_reason: str = "end"
    calls: Sequence[Call] = ()
    beside_calls: str = ""
    last: bool = False


@dataclass(frozen=True)
class Observation:
    """Answer of an environment to a turn.

    Attributes:
        messages: what it says, before the policy's next turn: a text, which is a message of the user, or messages.
        reward: of the turn; those of all turns add up.
        done: the conversation is over. What is said then, nobody reads.
        metrics: numbers by name, other than `OWN_METRICS`; each becomes a metric of the run, the mean over
            conversations of their sum over turns.
    """

    messages: str | Sequence[Message] = ()
    reward: float = 0.0
    done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


class Environment(ABC):
    """Other side of one conversation.

    Attributes:
        roles: of the messages that it says. That the chat template takes them after a turn of the assistant, and keeps
            all that came before as it was, is proved before a run starts.
    """

    roles: ClassVar[tuple[str, ...]] = ("user",)

    async def reset(self, question: Question) -> None:
        """Begin the conversation of a question. The policy has been asked it already, so there is nothing to say."""
        return

    @property
    def specs(self) -> list[dict[str, Any]]:
        """Functions that the policy may call, as OpenAI has them; the chat template is given them."""
        return []

    @abstractmethod
    async def step(self, action: Action) -> Observation:
        """Answer a turn of the policy.

        An exception, or no answer within `environment.step_deadline_s`, is a failure: the row is not learned from.
        """

    async def close(self) -> None:
        """Let go of what the conversation had; it is over, whoever ended it."""
        return


environments: Registry[type[Environment]] = Registry(
    "environment",
    *(
        f"hybridflow.environments.{name}"
        for name in ("graded_turn", "guess", "openenv_environment", "tool_use", "verifiers_environment")
    ),
    of=Environment,
)


def option_faults(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return by option what is wrong with it. Raises KeyError for an unknown name."""
    return faults(options_shell(environments.get(name)), options)


def make(name: str, options: Mapping[str, Any]) -> Environment:
    """Make an environment for one conversation.

    Raises KeyError for an unknown name, HybridFlowError for options that it does not take or cannot be made with.
    """
    kind = environments.get(name)
    if wrong := [f"{option}: {trouble}" for option, trouble in option_faults(name, options).items()]:
        raise HybridFlowError(f"options of environment {name!r}: {'; '.join(wrong)}")
    try:
        return kind(**effective_options(options_shell(kind), options))
    except (ValueError, TypeError, KeyError) as error:
        problem = error.args[0] if isinstance(error, KeyError) else error  # of a registry: a whole sentence
        raise HybridFlowError(f"environment {name!r} cannot be made with these options: {problem}") from error


def refuse_said(given: object) -> None:
    """Raise ValueError for what `reset` gave: nobody would read it."""
    if given is not None:
        raise ValueError(
            f"reset gave {shown(given)}, of type {type(given).__name__}, which the policy would never see; nothing was "
            "expected: what it is to know belongs into the prompt of the row, or into the answer to its first turn"
        )


def sound_observation(environment: Environment, given: object) -> Observation:
    """Return an observation with checked messages and floats throughout. Raises ValueError, saying what was found."""
    if not isinstance(given, Observation):
        raise ValueError(f"step gave {shown(given)}, of type {type(given).__name__}; an Observation was expected")
    said = [{"role": "user", "content": given.messages}] if isinstance(given.messages, str) else given.messages
    messages = checked(said) if said and not given.done else []
    if not messages and not given.done:
        raise ValueError(
            "step gave an Observation without messages that is not done; the policy would not know what to say"
        )
    for message in messages:
        if message["role"] not in environment.roles:
            raise ValueError(
                f"step gave a message of the role {message['role']!r}; the environment's roles are "
                f"{', '.join(environment.roles)}: name it there, as it is proved before a run that a template takes it"
            )
    if (size := sum(len(message.get("content") or "") for message in messages)) > MOST_CHARACTERS:
        raise ValueError(f"step gave messages of {size} characters; at most {MOST_CHARACTERS} were expected")
    if taken := sorted({*given.metrics} & OWN_METRICS):
        raise ValueError(f"step gave a metric {taken[0]!r}, which every run has of its own: give it another name")
    if odd := [name for name in given.metrics if not (isinstance(name, str) and name and name.isprintable())]:
        raise ValueError(f"step gave a metric named {shown(odd[0])}; what can be printed was expected")
    metrics = {name: number(value) for name, value in given.metrics.items()}
    return Observation(messages, number(given.reward), bool(given.done), metrics)
