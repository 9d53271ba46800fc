"""The model card of an export: from what a model was made, how, how it is to be asked, and how good it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridflow import __version__
from hybridflow.algorithms import algorithms
from hybridflow.config.model_roles import section
from hybridflow.config.schema import RewardConfig, TaskConfig
from hybridflow.observe.statistic_texts import with_errors
from hybridflow.tasks.chosen_graders import accuracy_grader
from hybridflow.trainer.resume import versions
from hybridflow.trainer.saved_run import SavedModel

VALIDATION = "validation/"
MODEL = "model"  # the folder of a run's model in its run folder


def card(saved: SavedModel) -> str:
    """Write the model card."""
    config = saved.config
    recipe = config.algorithm.recipe or config.algorithm.name
    base = Path(section(config, saved.role).model.path)
    start = f"the model of the run `{base.parent.name}`" if base.name == MODEL else f"`{base.name}`"
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [hybridflow, {recipe}]",
        "---",
        f"# {Path(config.run.name).name}",
        "",
        f"Trained by hybridflow {__version__} from {start}.",
        "",
        *(f"* {line}" for line in _made(saved, recipe)),
        "* made with " + ", ".join(f"{name} {version}" for name, version in versions().items()),
    ]
    if saved.validations:
        lines += _measured(saved.validations[-1])
    return "\n".join([*lines, ""])


def _made(saved: SavedModel, recipe: str) -> Iterator[str]:
    """Yield what the model was made of and how, a line each."""
    config = saved.config
    paper = config.algorithm.paper or algorithms.get(config.algorithm.name).paper
    given = _given(config.task.options)
    options = f" with `{json.dumps(given)}`" if given else ""
    samples = config.algorithm.samples_per_prompt
    yield f"algorithm: {recipe}{f' ({paper})' if paper else ''}"
    yield f"task: `{config.task.name}`{options}"
    yield from _prompts(config.task)
    if saved.role == "actor":
        yield _graders(config.reward)
    each = f", {samples} responses to each" if samples > 1 else ""
    yield f"steps: {saved.steps}, of {config.algorithm.prompts_per_step} prompts{each}; seed {config.run.seed}"


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that have a value; those of sources and columns too."""
    inner = {name: _given(value) if isinstance(value, dict) else value for name, value in options.items()}
    return {name: value for name, value in inner.items() if value is not None and value != {}}


def _graders(reward: RewardConfig) -> str:
    if not reward.graders:
        return f"grader: `{reward.grader}`"
    weights = ", ".join(f"`{name}` ({weight:g})" for name, weight in reward.graders.items())
    return f"graders, with their weights: {weights}; accuracy is by `{accuracy_grader(reward)}`"


def _prompts(task: TaskConfig) -> Iterator[str]:
    """Yield how prompts were made, where that is not as rows have them: the model is to be asked likewise."""
    form = {
        "a text is a user's message": task.as_chat,
        f"system prompt {json.dumps(task.system_prompt, ensure_ascii=False)}": task.system_prompt,
        f"the answer begins with {json.dumps(task.prefill, ensure_ascii=False)}": task.prefill,
        f"chat template with `{json.dumps(task.chat_template_kwargs)}`": task.chat_template_kwargs,
        f"tools of `{Path(task.tools).name}`": task.tools,
    }
    if used := [words for words, value in form.items() if value]:
        yield f"prompts: {'; '.join(used)}"


def _measured(validation: dict[str, float]) -> Iterator[str]:
    """Yield the table of the last validation; a number that was not finite is not told."""
    numbers = {
        name.removeprefix(VALIDATION): value
        for name, value in validation.items()
        if name.startswith(VALIDATION) and value is not None
    }
    yield from ("", f"| validation, steps taken: {validation['step']} | |", "|---|---|")
    yield from (f"| {name} | {text} |" for name, text in with_errors(numbers).items())
