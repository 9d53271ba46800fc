"""Shell completion: Hydra's, with the subcommand taken out of the line that the shell hands over, and what Hydra lacks.

The shell calls `hybridflow -sc query=bash` with the line so far in COMP_LINE; the first words are ours, the rest
Hydra's. Ours too are the names of registered parts, options in a folder given by -cd, and the stages of `rlhf`. A
completion prints candidates or nothing, never an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from hybridflow.observe import terminal

FLAGS = ("-sc", "--shell-completion")
HYDRAS = ("train", "sft", "train-reward", "train-cost")  # the subcommands that Hydra runs
FOLDER = ("-cd", "--config-dir")
FILE = ("-cn", "--config-name")
HARDWARE = "hardware="  # of `plan` and `map`, which is no setting

HandOver = Callable[[str, Sequence[str]], int]


@dataclass(frozen=True)
class Line:
    """Words that follow the subcommand, and the one that is being typed."""

    words: tuple[str, ...]
    word: str

    @staticmethod
    def of(text: str) -> Line:
        """Split a text into words; as Hydra, by spaces alone."""
        words = text.split()
        return Line(tuple(words), "") if not text or text[-1] == " " else Line(tuple(words[:-1]), words[-1])

    def after(self, flags: Sequence[str]) -> str | None:
        """Return the word after one of these flags, if it is there."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return next((value for flag, value in pairs if flag in flags), None)


def run(argv: Sequence[str], subcommands: Sequence[str], hand_over: HandOver) -> int:
    """Carry out `hybridflow -sc install|uninstall|query=SHELL`.

    Args:
        argv: the arguments, from the flag on.
        subcommands: what can stand first on a line.
        hand_over: calls Hydra's application of a subcommand with arguments; only asked for those that Hydra runs.
    """
    query = next((argument for argument in argv if argument.startswith("query=")), None)
    if query is None:
        return hand_over("train", argv)
    _, _, rest = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    subcommand, space, arguments = rest.lstrip().partition(" ")
    candidates = [name for name in subcommands if name.startswith(subcommand)] if not space else []
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):  # a plugin may print
            if space and subcommand in (*HYDRAS, *OWN):
                complete = OWN.get(subcommand, _settings)
                candidates = complete(subcommand, Line.of(arguments), argv, hand_over)
    except (Exception, SystemExit):
        return 0  # a half-typed line may be anything
    if candidates:
        terminal.say((" " if query == "query=bash" else "\n").join(candidates))
    return 0


def _settings(subcommand: str, line: Line, argv: Sequence[str], hand_over: HandOver) -> list[str]:
    """Complete what a key may be where that can be listed, else ask Hydra."""
    from hybridflow.cli.names import values_for
    from hybridflow.config import plugins

    if line.words and line.words[-1] in FOLDER:
        return _folders(line.word)
    folder = line.after(FOLDER)
    key, equals, start = line.word.partition("=")
    if equals and (values := values_for(key.lstrip("+"))) is not None:
        settings = [word for word in line.words if "=" in word]
        plugins.load(plugins.named(subcommand, settings, folder))
        return [f"{key}={value}" for value in values() if value.startswith(start)]
    return _hydras(subcommand, line, argv, hand_over)


def _hydras(subcommand: str, line: Line, argv: Sequence[str], hand_over: HandOver) -> list[str]:
    """Return what Hydra prints; it takes the folder from its own arguments, and knows no key after a `+`."""
    folder = line.after(FOLDER)
    bare = line.word.lstrip("+~") if "." in line.word else line.word
    os.environ["COMP_LINE"] = " ".join(["hybridflow", *line.words, bare])
    with redirect_stdout(StringIO()) as out:
        hand_over(subcommand, [*(("-cd", folder) if folder else ()), *argv])
    return [line.word[: len(line.word) - len(bare)] + candidate for candidate in out.getvalue().split()]


def _stages(_: str, line: Line, argv: Sequence[str], hand_over: HandOver) -> list[str]:
    """Complete the stages of the file, and in each the settings of its subcommand; without one, those of the first."""
    from hybridflow.cli.stages import read

    folder = line.after(FOLDER)
    stages = read(line.after(FILE) or "rlhf", (), Path(folder) if folder else None)
    body = line.word.lstrip("+~")
    prefix = line.word[: len(line.word) - len(body)]
    name, dot, rest = body.partition(".")
    chosen = next((stage for stage in stages if dot and stage.name == name), None)
    stage = chosen or stages[0]
    flags = ("-cd", folder) if folder else ()
    own = replace(line, words=(*flags, *stage.overrides), word=prefix + rest if chosen else line.word)
    candidates = _settings(stage.command, own, argv, hand_over)
    if chosen:
        return [f"{prefix}{name}.{candidate.removeprefix(prefix)}" for candidate in candidates]
    return [*(f"{prefix}{stage.name}." for stage in stages if not dot and stage.name.startswith(body)), *candidates]


def _rows(_: str, line: Line, argv: Sequence[str], hand_over: HandOver) -> list[str]:
    """Complete the name of a task as the first word, and settings; files are the shell's to complete."""
    from hybridflow.tasks import tasks

    words = line.words
    flagged = {at for at, word in enumerate(words) if word in FOLDER}
    kept = [word for at, word in enumerate(words) if "=" in word or at in flagged or at - 1 in flagged]
    names = [name for name in sorted(tasks) if name.startswith(line.word)] if len(kept) == len(words) else []
    if not line.word or "/" in line.word:
        return names
    return [*names, *_settings("train", replace(line, words=tuple(kept)), argv, hand_over)]


def _planned(_: str, line: Line, argv: Sequence[str], hand_over: HandOver) -> list[str]:
    """Complete a subcommand as the first word, hardware by its name, and the settings of what is planned."""
    from hybridflow.planning.hardware_files import hardware_names

    if line.word.startswith(HARDWARE):
        return [f"{HARDWARE}{name}" for name in hardware_names() if f"{HARDWARE}{name}".startswith(line.word)]
    named = [word for word in line.words if word in HYDRAS]
    kept = tuple(word for word in line.words if word not in named and not word.startswith(HARDWARE))
    own = [name for name in (*(() if line.words else HYDRAS), HARDWARE) if name.startswith(line.word)]
    return [*own, *_settings((*named, "train")[0], replace(line, words=kept), argv, hand_over)]


def _folders(start: str) -> list[str]:
    above = Path(start if start.endswith("/") else os.path.dirname(start) or ".")
    folders = sorted(
        f"{os.path.join(os.path.dirname(start), entry.name)}/" for entry in above.iterdir() if entry.is_dir()
    )
    return [name for name in folders if name.startswith(start)]


OWN = {
    "rlhf": _stages,
    "data": _rows,
    "plan": _planned,
    "map": _planned,
}  # subcommands that Hydra does not run, and that take settings
