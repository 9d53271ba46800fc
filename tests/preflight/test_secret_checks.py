"""Settings that hold a secret are refused, and their values not shown."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow import preflight
from hybridflow.config import compose
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


@pytest.mark.parametrize(
    "address",
    [
        f"https://me:{SECRET}@there:5000",
        f"postgresql://me:{SECRET}@there/runs",
        f"https://{SECRET}@there",
        f"https://there/?token={SECRET}",
        f"https://there/?a=1&api_key={SECRET}#b",
        f"https://there/?sig={SECRET}",
    ],
)
def test_so_is_one_in_an_address(address: str) -> None:
    (found,) = problems(build_config(mlflow={"tracking_uri": address}))
    assert found.startswith("trainer.sink_options.mlflow.tracking_uri: an address with a password or a token")
    assert SECRET not in found


@pytest.mark.parametrize(
    "given",
    [
        f"+trainer.sink_options.wandb.api_key={SECRET}",
        f"+trainer.sink_options.wandb={{deep: [{{api_key: {SECRET}}}]}}",
        f"+reward.grader_options.http={{url: 'http://me:{SECRET}@there'}}",
        f"+trainer.sink_options.wandb.api_key='{SECRET}'",
        f"trainer.resume='https://me:{SECRET}@there'",
    ],
)
def test_nor_is_it_shown_where_the_setting_is(given: str) -> None:
    job = compose.compose("train", ["experiment=addition", "algorithm=grpo", given])
    told = [job.origins.annotate(problem) for problem in preflight.problems(job.to_config(), origins=job.origins)]
    assert any("give it by an environment variable" in line for line in told)
    assert SECRET not in " ".join(told)


@pytest.mark.parametrize(
    "options",
    [
        {"token_env": "GRADER_TOKEN"},
        {"api_key": ""},
        {"url": "http://127.0.0.1:8000/grade"},
        {"url": "http://[broken"},
        {"url": "http://there/?page=1&token="},
        {"tracking_uri": "postgresql://me@there/runs"},
        {"eos_token": "</s>"},
        {"answer_key": "solution"},
    ],
)
def test_other_options_are_none(options: dict[str, str]) -> None:
    assert problems(build_config(mine=options)) == []
