"""What `auto` comes to, and where it is told."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from hybridflow.config import auto_settings
from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import ComponentConfig, Config
from hybridflow.preflight import component_checks, load

NAME = "algorithm.policy_loss.correction.name"


def composed(*overrides: str) -> Config:
    return load("train", ["experiment=addition", "algorithm=grpo", *overrides])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["actor.model.dtype=float32"], ComponentConfig("none")),
        (["actor.model.dtype=bfloat16"], ComponentConfig("token_truncated", {"max": 3.0})),
        (
            ["actor.model.dtype=bfloat16", "+algorithm.policy_loss.correction.options.max=5"],
            ComponentConfig("token_truncated", {"max": 5}),
        ),
        (["actor.model.dtype=bfloat16", f"{NAME}=none"], ComponentConfig("none")),
        (["actor.model.dtype=float32", f"{NAME}=row_masked"], ComponentConfig("row_masked")),
    ],
)
def test_the_correction_follows_the_number_format(overrides: list[str], expected: ComponentConfig) -> None:
    """And the settings that a run writes down say what it comes to, not `auto`."""
    config = composed(*overrides)
    assert auto_settings.correction(config) == expected
    written = OmegaConf.create(resolved_yaml(config)).algorithm.policy_loss.correction
    assert (written.name, dict(written.options)) == (expected.name, dict(expected.options))


def test_it_is_told_in_a_line() -> None:
    assert auto_settings.described(composed("actor.model.dtype=bfloat16")) == (
        "algorithm.policy_loss.correction: auto is token_truncated, max 3.0 (actor in bfloat16)"
    )
    assert auto_settings.described(composed()).endswith("auto is none (actor in float32)")
    assert auto_settings.described(composed(f"{NAME}=none")) == ""
    assert auto_settings.described(composed("trainer.schedule=one_step_off", "placement=rollout_pool")).endswith(
        "auto is token_truncated, max 3.0 (actor in float32, trainer.schedule=one_step_off)"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_option_of_auto_is_told(dtype: str) -> None:
    from hybridflow.algorithms import algorithms

    config = composed(f"actor.model.dtype={dtype}")
    config.algorithm.policy_loss.correction.options = {"mots": 3}
    [problem] = component_checks.problems(config, algorithms.get("grpo"))
    assert problem.startswith("algorithm.policy_loss.correction") and "mots" in problem
