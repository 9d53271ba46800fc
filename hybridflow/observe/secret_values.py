"""Secrets in text that is shown or kept: what the environment holds under a name such as WANDB_API_KEY is left out.

Settings have no place for secrets (`preflight.secret_checks`); those that libraries and graders need come by the
environment. An error of theirs may still quote one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

NAMED = re.compile(r"(TOKEN|API_?KEY|SECRET|SECRET_KEY|ACCESS_KEY|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
SHORTEST = 8  # characters: a shorter value is found in any text


def secrets() -> dict[str, str]:
    """Return the values that are secret, by the names of their variables."""
    return {name: value for name, value in os.environ.items() if len(value) >= SHORTEST and NAMED.search(name)}


def redacted(text: str, known: Mapping[str, str] | None = None) -> str:
    """Put the name of its variable, as `[WANDB_API_KEY]`, where a secret stands, also as JSON has it.

    Args:
        known: what `secrets` returns, for whoever has many texts; None: look.
    """
    for name, value in (secrets() if known is None else known).items():
        for form in (value, *(json.dumps(value, ensure_ascii=ascii_alone)[1:-1] for ascii_alone in (True, False))):
            text = text.replace(form, f"[{name}]")
    return text
