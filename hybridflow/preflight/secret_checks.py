"""Secrets in settings: refused, as a run keeps its settings and its command in files, and tells trackers of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from hybridflow.config.schema import Config

NAMED = re.compile(
    r"(^|_)(api_?key|password|passwd|secret|secret_key|access_key|credentials?|(access|auth|bearer|api|hf)_token)$",
    re.IGNORECASE,
)


def problems(config: Config) -> list[str]:
    """List the settings that hold a secret, as `key: what was found; what to do`. Their values are not shown."""
    return list(_found(asdict(config), ""))


def _found(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _found(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _found(inner, key)
    elif isinstance(value, str) and value:
        name = key.rpartition(".")[2]
        if NAMED.search(name):
            yield (
                f"{key}: a secret belongs in no setting, as runs keep theirs in files and tell trackers of them; give "
                "it by an environment variable (WANDB_API_KEY, MLFLOW_TRACKING_TOKEN, token_env of a grader)"
            )
        elif "://" in value and _has_password(value):
            yield f"{key}: an address with a password in it; give the password by an environment variable"


def _has_password(address: str) -> bool:
    try:
        return bool(urlsplit(address).password)
    except ValueError:
        return False
