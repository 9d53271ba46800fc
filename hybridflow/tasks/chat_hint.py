"""A hint for who trains a chat model on texts: they stay texts, whatever the model, which is seldom what is meant."""

from __future__ import annotations

from hybridflow.errors import DataError
from hybridflow.tasks.task import Task

LOOKED_AT = 16  # rows, until one can be read

HINT = "prompts are texts, and the model has a chat template: task.as_chat=true makes each of them a user's message"


def hints(task: Task, split: str) -> list[str]:
    """Return the hint, if the split's prompts are texts that a chat template would have a use for."""
    if not getattr(task.tokenizer, "chat_template", None) or task.chat_form.as_chat:
        return []
    for number in range(min(task.size(split), LOOKED_AT)):
        try:
            return [HINT] if isinstance(task.example(split, number).prompt, str) else []
        except DataError:  # told, or skipped, elsewhere
            continue
    return []
