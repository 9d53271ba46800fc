"""Shell completion: Hydra's, with the subcommand taken out of the line that the shell hands over.

The shell calls `hybridflow -sc query=bash` with the line so far in COMP_LINE; the first words are ours, the rest
Hydra's. A completion prints candidates or nothing, never an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO

from hybridflow.observe import terminal

FLAGS = ("-sc", "--shell-completion")
HYDRAS = ("train", "sft", "train-reward", "train-cost")  # the subcommands that Hydra runs


def run(argv: Sequence[str], subcommands: Sequence[str], hand_over: Callable[[str, Sequence[str]], int]) -> int:
    """Carry out `hybridflow -sc install|uninstall|query=SHELL`.

    Args:
        argv: the arguments, from the flag on.
        subcommands: what can stand first on a line.
        hand_over: calls Hydra's application of a subcommand with arguments; only asked for those that Hydra runs.
    """
    if not any(argument.startswith("query=") for argument in argv):
        return hand_over("train", argv)
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.lstrip().partition(" ")
    subcommand, space, arguments = rest.lstrip().partition(" ")
    if not space:
        terminal.say(" ".join(name for name in subcommands if name.startswith(subcommand)))
        return 0
    if subcommand not in HYDRAS:
        return 0
    os.environ["COMP_LINE"] = f"{program} {arguments}"
    try:
        with redirect_stderr(StringIO()):
            hand_over(subcommand, argv)
    except (Exception, SystemExit):
        return 0  # a half-typed line may be anything
    return 0
