"""Secrets in settings: refused, as a run keeps its settings and its command in files, and tells trackers of them."""

from __future__ import annotations

from dataclasses import asdict

from hybridflow.config.schema import Config
from hybridflow.config.secret_settings import found


def problems(config: Config) -> list[str]:
    """List the settings that hold a secret, as `key: what was found; what to do`. Their values are not shown."""
    return [
        f"{key}: an address with a password or a token in it; give it by an environment variable"
        if in_address
        else f"{key}: a secret belongs in no setting, as runs keep theirs in files and tell trackers of them; give it "
        "by an environment variable (WANDB_API_KEY, MLFLOW_TRACKING_TOKEN, token_env of a grader)"
        for key, in_address in found(asdict(config), "")
    ]
