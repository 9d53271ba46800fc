"""Task `verifiers`: the questions of a taskset of the package verifiers, for the environments of that name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridflow.bounds import Count, NotNegativeInt
from hybridflow.errors import HybridFlowError, shown
from hybridflow.tasks.chat_messages import Message
from hybridflow.tasks.task import Example, Task, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODULE = "verifiers.v1"  # what environments for older releases were written against has gone from it


def required() -> None:
    """Raise HybridFlowError if the package is not installed, or is of a release that has other environments."""
    if find_spec("verifiers") is None:
        raise HybridFlowError(
            "verifiers needs the package verifiers, which is not installed: pip install 'hybridflow[verifiers]'"
        )
    if find_spec(MODULE) is None:
        raise HybridFlowError(
            "the installed package verifiers has no verifiers.v1, tasksets and harnesses as they are since 0.4: "
            "pip install 'hybridflow[verifiers]'"
        )


def env_config(taskset: str, config: Mapping[str, Any] | None) -> Any:
    """Return verifiers' own configuration of an environment, on this machine unless it says otherwise.

    Args:
        taskset: the name of its package.
        config: the rest, as the table `[env]` of verifiers' own configuration files.

    Raises ValueError for what verifiers does not take, and for programs that would run a model's commands right here.
    """
    required()
    import verifiers.v1 as vf
    from verifiers.v1.configs.agent import agent_config_fields

    raw: dict[str, Any] = json.loads(json.dumps(config or {}))
    raw["taskset"] = {**raw.get("taskset", {}), "id": taskset}
    try:
        roles = agent_config_fields(vf.resolve_env_config(raw))
        own_harness = vf.default_harness_id(taskset)
        for role in roles:
            given = raw.setdefault(role, {})
            given.setdefault("runtime", {"type": "subprocess"})
            if "harness" not in given and roles[role].harness is None and own_harness == "bash":
                given["harness"] = {"id": "null"}  # a chat with the taskset's tools, and none of its own
        made = vf.resolve_env_config(raw)
        _check_harnesses(made)
    except (ImportError, TypeError, ValueError, AttributeError) as error:  # pydantic's own is a ValueError
        own = f"; a module of yours is found by plugins=[{taskset}]" if isinstance(error, ImportError) else ""
        raise ValueError(f"taskset {taskset!r}: {str(error).rstrip('.')}{own}") from error
    return made


def _check_harnesses(made: Any) -> None:
    """Raise ValueError for a harness that runs a model's commands on this machine without a container."""
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.utils.loaders import harness_class

    harnesses = made.agent_harnesses()
    for role, agent in agent_config_fields(made).items():
        name = harnesses[role].id
        if agent.runtime.type == "subprocess" and harness_class(name).EXECUTES_CODE:
            raise ValueError(
                f"the harness {name!r} of {role!r} runs what a model writes, and would do so on this machine; give it "
                f"a container (config.{role}.runtime.type=docker), or the harness null, which has the taskset's tools"
            )


def loaded(made: Any, most: int) -> list[Any]:
    """Return the first tasks of a configuration's taskset."""
    import verifiers.v1 as vf

    return list(islice(vf.load_taskset(made.taskset), most))


def opening(task: Any) -> list[Message]:
    """Return the messages that a task begins with. Raises ValueError if it begins with none."""
    from verifiers.v1.dialects.chat import message_to_wire

    prompt = task.data.prompt
    if not prompt:
        raise ValueError("the task has no prompt: what another agent is to say first cannot be a row's prompt")
    system = [{"role": "system", "content": task.data.system_prompt}] if task.data.system_prompt else []
    if isinstance(prompt, str):
        return [*system, {"role": "user", "content": prompt}]
    return [*system, *(message_to_wire(message) for message in prompt)]


@tasks.register("verifiers")
class VerifiersRows(Task):
    """Tasks of one of verifiers' tasksets, shuffled; none of `held_out` is asked in another split.

    Args:
        taskset: the name of its package.
        config: the environment's configuration, as the table `[env]` of verifiers' own files; the environment of the
            run takes the same.
        rows: tasks that are taken at most: a taskset may have no end.
        held_out_rows: of these.
        seed: of the shuffle.

    Raises ValueError for what verifiers does not take, HybridFlowError without the package.
    """

    grader = "environment"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        taskset: str,
        config: Mapping[str, Any] | None = None,
        rows: Count = 10_000,
        held_out_rows: Count = 100,
        seed: NotNegativeInt = 0,
    ) -> None:
        super().__init__(tokenizer)
        self._taskset = taskset
        self._tasks = loaded(env_config(taskset, config), rows)
        order = np.random.default_rng(seed).permutation(len(self._tasks)).tolist()
        if len(order) <= held_out_rows:
            raise ValueError(
                f"held_out_rows: {held_out_rows} given, and the taskset {taskset!r} has {len(order)} tasks; some must "
                "be left to train on"
            )
        self._held_out = order[:held_out_rows]
        asked = {self._questions[number] for number in self._held_out}
        self._train = [number for number in order[held_out_rows:] if self._questions[number] not in asked]
        if not self._train:
            raise ValueError(f"the taskset {taskset!r} has only one task, again and again")
        self.source_names = frozenset({taskset})

    def size(self, split: str) -> int:
        return len(self._numbers(split))

    def example(self, split: str, index: int) -> Example:
        number = self._numbers(split)[index]
        task = self._tasks[number]
        known = {"verifiers": {"taskset": self._taskset, "index": number, "key": task.key}}
        answer = getattr(task.data, "answer", "")  # tasks need not have any
        text = str(answer) if isinstance(answer, str | int | float) else ""
        return Example(opening(task), text, number, known, self._taskset)

    def _numbers(self, split: str) -> Sequence[int]:
        return self._held_out if split == "held_out" else self._train

    @cached_property
    def _questions(self) -> list[str]:
        """What is known of each task but its place, as one text: some have the prompt in common, as games have."""
        return [task.data.model_dump_json(exclude={"idx"}) for task in self._tasks]


def asked(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a row knows of its task. Raises ValueError for a row of something else."""
    known = metadata.get("verifiers")
    if not isinstance(known, Mapping):
        raise ValueError(
            f"the row's metadata is {shown(metadata)}; the environment verifiers needs rows of task=verifiers"
        )
    return known
