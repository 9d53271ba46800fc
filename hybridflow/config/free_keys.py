"""Settings below a mapping of free keys, such as options: the command line may name one with or without a `+`.

Hydra wants a `+` before a key that no file has named so far, and none before one that has a value. Which of the two it
is depends on the files that were chosen, and misspelt keys are found either way: what a component takes is checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hybridflow.config.key_suggestions import is_free

ADDS_OR_CHANGES = "++"  # Hydra's prefix for a key that may have a value already
SETTING = re.compile(r"\+{0,2}([\w./-]+)=")


def added(lines: Sequence[str]) -> list[str]:
    """Let overrides of free keys add what is not there. What is no override stays as it is."""
    return [_added(line) for line in lines]


def _added(line: str) -> str:
    match = SETTING.match(line)
    if match is None or not is_free(match[1]):
        return line
    return f"{ADDS_OR_CHANGES}{match[1]}={line[match.end() :]}"
