"""Settings that hold a secret are refused, and their values not shown."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow.config.schema import Config
from hybridflow.preflight.secret_checks import problems

SECRET = "0123456789abcdef"


def build_config(**options: Any) -> Config:
    config = Config()
    config.trainer.sink_options = options
    return config


@pytest.mark.parametrize("name", ["api_key", "apikey", "WANDB_API_KEY", "password", "auth_token", "client_secret"])
def test_a_secret_is_refused_and_not_shown(name: str) -> None:
    (found,) = problems(build_config(wandb={"options": [{name: SECRET}]}))
    assert found.startswith(f"trainer.sink_options.wandb.options.{name}: a secret belongs in no setting")
    assert SECRET not in found


def test_so_is_a_password_in_an_address() -> None:
    (found,) = problems(build_config(mlflow={"tracking_uri": f"https://me:{SECRET}@there:5000"}))
    assert found.startswith("trainer.sink_options.mlflow.tracking_uri: an address with a password")
    assert SECRET not in found


@pytest.mark.parametrize(
    "options",
    [
        {"token_env": "GRADER_TOKEN"},
        {"api_key": ""},
        {"url": "http://127.0.0.1:8000/grade"},
        {"url": "http://[broken"},
        {"eos_token": "</s>"},
        {"answer_key": "solution"},
    ],
)
def test_other_options_are_none(options: dict[str, str]) -> None:
    assert problems(build_config(mine=options)) == []
