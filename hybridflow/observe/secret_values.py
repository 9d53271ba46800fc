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
    """Return the names of variables by the values that are secret, as they are and as JSON has them."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and NAMED.search(name):
            for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
                found.setdefault(form, name)
    return found


def redacted(text: str, known: Mapping[str, str] | None = None) -> str:
    """Put the name of its variable, as `[WANDB_API_KEY]`, where a secret stands, also as JSON has it.

    Args:
        known: what `secrets` returns, for whoever has many texts; None: look.
    """
    for value, name in (secrets() if known is None else known).items():
        text = text.replace(value, f"[{name}]")
    return text
