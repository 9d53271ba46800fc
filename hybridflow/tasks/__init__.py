"""Tasks: prompts with known answers, the graders that compare, and the tokenizers that stand between text and model."""

from hybridflow.tasks.encoder import Message
from hybridflow.tasks.graded_row import Grade, GradedRow
from hybridflow.tasks.grader_registry import Grader, graders
from hybridflow.tasks.preference_task import HarmTask, PreferenceTask
from hybridflow.tasks.prompt_order import Prompts
from hybridflow.tasks.task import SPLITS, Example, Task, build, check_options, tasks

__all__ = [
    "SPLITS",
    "Example",
    "Grade",
    "GradedRow",
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
