"""Every number of the schema says what it may be, and is held to it."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from omegaconf import OmegaConf

from hybridflow import preflight
from hybridflow.config import compose, number_bounds, setting_keys
from hybridflow.config.schema import Config
from hybridflow.errors import ConfigError
from hybridflow.preflight import setting_checks

SOUND = compose.compose("train", ["experiment=addition"]).tree
OmegaConf.set_struct(SOUND, False)


def changed(line: str) -> Config:
    """The settings with one change, in YAML; composing anew for each takes half a second."""
    return OmegaConf.to_object(OmegaConf.merge(SOUND, OmegaConf.from_dotlist([line])))  # type: ignore[return-value]


def undeclared(kind: Any) -> list[str]:
    return [key for key, found, _ in number_bounds.declared(kind) if found.bounds is None]


def test_no_number_of_the_schema_is_without_bounds_or_a_reason():
    assert undeclared(Config) == []


def test_a_number_without_them_would_be_noticed():
    @dataclass
    class Inner:
        most: int = 3
        named: dict[str, float] = field(default_factory=dict)
        often: list[int] = field(default_factory=list)

    @dataclass
    class Outer:
        inner: Inner = field(default_factory=Inner)
        share: float | None = None

    # Their annotations name what only this function knows.
    Outer.__annotations__["inner"] = Inner
    assert undeclared(Outer) == ["inner.most", "inner.named.*", "inner.often.*", "share"]


def test_every_default_is_within_its_bounds():
    found = [(key, found.problem(default)) for key, found, default in number_bounds.declared() if default is not ...]
    assert len(found) > 40 and [line for line in found if line[1]] == []


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("actor.optimizer.lr=-1", "actor.optimizer.lr: -1.0 given, at least 0 expected"),
        ("actor.optimizer.lr=.nan", "actor.optimizer.lr: nan given, a finite number was expected"),
        ("actor.optimizer.lr=.inf", "actor.optimizer.lr: inf given, a finite number was expected"),
        ("critic.optimizer.beta1=2", "critic.optimizer.beta1: 2.0 given, at least 0 and less than 1 expected"),
        ("actor.optimizer.beta2=1", "actor.optimizer.beta2: 1.0 given, at least 0 and less than 1 expected"),
        ("actor.optimizer.eps=0", "actor.optimizer.eps: 0.0 given, at least 1e-37 expected"),
        ("actor.optimizer.clip_grad=-1", "actor.optimizer.clip_grad: -1.0 given, at least 0 expected"),
        ("algorithm.policy_loss.kl_coef=-1", "algorithm.policy_loss.kl_coef: -1.0 given, at least 0 expected"),
        ("algorithm.policy_loss.entropy_coef=.nan", "algorithm.policy_loss.entropy_coef: nan given, a finite number"),
        ("algorithm.lagrange.limit=-.inf", "algorithm.lagrange.limit: -inf given, a finite number was expected"),
        ("trainer.stop_at_accuracy=95", "trainer.stop_at_accuracy: 95.0 given, at least 0 and at most 1, or null ex"),
        ("rollout.kv_cache_gib=0", "rollout.kv_cache_gib: 0.0 given, more than 0 and at most 1048576 expected"),
        (
            "trainer.collective_timeout_s=1e22",
            "trainer.collective_timeout_s: 1e+22 given, at least 1 and at most 31536000 expected",
        ),
        ("rollout.stop_token_ids=[3,-1]", "rollout.stop_token_ids: -1 given, at least 0 expected"),
        ("run.seed=-1", "run.seed: -1 given, at least 0 and less than 9223372036854775808 expected"),
        ("trainer.steps=100000000000000000000", "trainer.steps: a whole number of more than 64 bits given"),
        *(
            (f"{key}={10**12}", f"{key}: {10**12} given, at least {least} and at most {most}")
            for key, least, most in (
                ("algorithm.prompts_per_step", 1, 2**20),
                ("algorithm.samples_per_prompt", 1, 2**20),
                ("rollout.max_concurrent_rows", 1, 2**20),
                ("reward.grader_concurrency", 1, 2**20),
                ("trainer.validation_samples", 1, 2**20),
                ("trainer.spare_prompts", 0, 2**20),
                ("trainer.max_staleness", 0, 1000),
                ("placement.pools.main", 1, 2**16),
            )
        ),
        ("placement.pools.main=-2", "placement.pools.main: -2 given, at least 1 and at most 65536 expected"),
        ("reward_model.max_tokens_per_rank=0", "reward_model.max_tokens_per_rank: 0 given, at least 1 expected"),
        ("algorithm.advantage.options.gamma=.nan", "algorithm.advantage.options.gamma: nan given, a finite number was"),
        ("task.options.deep={a: [1, .inf]}", "task.options.deep.a: inf given, a finite number was expected"),
    ],
)
def test_a_number_out_of_its_bounds_is_told_with_them(override, problem):
    (found,) = number_bounds.problems(changed(override))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "override",
    [
        "actor.optimizer.lr=0",
        "actor.optimizer.weight_decay=0",
        "actor.optimizer.clip_grad=0",
        "actor.optimizer.beta1=0",
        "rollout.top_k=-1",
        "rollout.top_p=1",
        "algorithm.policy_loss.entropy_coef=-0.01",
        "algorithm.lagrange.limit=-3",
        "trainer.steps=0",
        "trainer.stop_at_accuracy=1",
        "trainer.stop_at_accuracy=null",
        "run.seed=0",
        "run.seed=20261129123000",
    ],
)
def test_what_stands_on_the_edge_is_right(override):
    assert number_bounds.problems(changed(override)) == []


@pytest.mark.parametrize("given", ["rollout.stop_token_ids=[1,[2]]", "rollout.stop=[[a]]", "rollout.stop=[{a:b}]"])
def test_a_list_among_values_is_a_wrong_type(given):
    key = given.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}: wrong type: .* where one value was expected \({re.escape(given)}"):
        preflight.load("sft", ["experiment=addition_warmup", given])


PACED = compose.compose("train", ["experiment=addition", "placement=rollout_pool", "trainer.schedule=async"]).tree
OmegaConf.set_struct(PACED, False)


def test_a_number_out_of_its_bounds_is_told_once_whatever_follows_from_it():
    told = {}
    for key, number, _ in number_bounds.declared():
        named = key.replace(setting_keys.ROLE, "actor")
        if number.problem(-7) and not key.endswith("*") and named.startswith(("actor.", "algorithm.", "trainer.")):
            config = OmegaConf.to_object(OmegaConf.merge(PACED, OmegaConf.from_dotlist([f"{named}=-7"])))
            told[named] = setting_checks.problems(config)
    assert len(told) > 40
    # Sizes of the actor are other roles' too, each of which is told by itself.
    follows = {key: [line for line in lines if ": -7" not in line] for key, lines in told.items()}
    assert {key: lines for key, lines in follows.items() if lines} == {}
    assert [key for key, lines in told.items() if sum(line.startswith(f"{key}: ") for line in lines) != 1] == []
