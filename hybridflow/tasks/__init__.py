"""Tasks: prompts with known answers, the graders that compare, and the tokenizers that stand between text and model."""

from hybridflow.tasks.encoder import Message
from hybridflow.tasks.preference_task import HarmTask, PreferenceTask
from hybridflow.tasks.prompt_order import Prompts
from hybridflow.tasks.task import SPLITS, Example, Grader, Task, build, check_options, graders, tasks

__all__ = [
    "SPLITS",
    "Example",
    "Grader",
    "HarmTask",
    "Message",
    "PreferenceTask",
    "Prompts",
    "Task",
    "build",
    "check_options",
    "graders",
    "tasks",
]
