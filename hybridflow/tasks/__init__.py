"""Tasks: prompts with known answers, the graders that compare, and the tokenizers that stand between text and model."""

from hybridflow.tasks.base import SPLITS, Example, Grader, Task, build, check_options, graders, tasks
from hybridflow.tasks.encoder import Message
from hybridflow.tasks.preferences import HarmTask, PreferenceTask
from hybridflow.tasks.prompts import Prompts

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
