"""What can be done with a run that has ended or was stopped, as commands that can be run as they stand."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

COMMANDS = ("train", "sft", "train-reward", "train-cost")
EXPORTS = Path("models")
ANEW = ("trainer.steps=", "trainer.resume=")  # of the command that made a run, what its continuation does not repeat
SWEEPS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def next_commands(run: Path, name: str, *, answers: bool, steps: int, argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what can be done with a run, and the command.

    Args:
        run: its folder, as the user has it.
        name: `run.name`; a job of a sweep is `SWEEP/NUMBER`.
        answers: its model answers prompts, and is no reward model.
        steps: those to go on to; 0 if no checkpoint was kept.
        argv: the command line that made the run.
    """
    own = shlex.quote(str(run))
    if answers:
        yield "evaluate", f"hybridflow evaluate {own}"
    yield "export", f"hybridflow export {own} --out {shlex.quote(str(_free(EXPORTS / name.replace('/', '-'))))}"
    yield "continue", _continued(argv, steps) if steps else "not possible: no checkpoint was kept (trainer.save_every)"


def resumed(argv: Sequence[str], resume: str) -> str:
    """Return the command that goes on with what a signal has stopped, also if it makes several runs.

    Args:
        resume: `trainer.resume` of the run.
    """
    start = next((place for place, word in enumerate(argv) if Path(word).name == "hybridflow"), None)
    if start is None:
        return shlex.join(argv)
    words = [word for word in argv[start + 1 :] if not word.startswith("trainer.resume=")]
    return shlex.join(["hybridflow", *words, *(["trainer.resume=auto"] if resume != "auto" else [])])


def _free(folder: Path) -> Path:
    """Return the folder, or the first with a number behind it, that is not there."""
    names = itertools.chain([folder], (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _continued(argv: Sequence[str], steps: int) -> str:
    """Return the command with more steps; in words for one that made other runs too, or none."""
    start = next((place for place, word in enumerate(argv) if place and word in COMMANDS), 0)
    words = argv[start:]
    if not start or Path(argv[start - 1]).name != "hybridflow" or any(word in SWEEPS for word in words):
        return f"trainer.steps={steps}, or another number, added to the same command"
    kept = [word for word in words if not word.startswith(ANEW)]
    return shlex.join(["hybridflow", *kept, f"trainer.steps={steps}"])
