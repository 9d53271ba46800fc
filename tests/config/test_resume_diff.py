"""Which settings a resumed run may have otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from hybridflow.config.compose import resolved_yaml
from hybridflow.config.resume_diff import Changes, changes
from hybridflow.config.schema import Config
from hybridflow.preflight import load

ADDITION = ["experiment=addition"]


def compared(*overrides: str, both: tuple[str, ...] = ()) -> Changes:
    before, now = load("train", [*ADDITION, *both]), load("train", [*ADDITION, *both, *overrides])
    return changes(resolved_yaml(before), resolved_yaml(now), now)


@pytest.mark.parametrize(
    "override",
    [
        "run.name=other",
        "ray.address=auto",
        "trainer.steps=7",
        "trainer.save_every=3",
        "trainer.resume=never",
        "trainer.stop_at_accuracy=0.5",
    ],
)
def test_these_may_differ(override: str) -> None:
    assert compared(override) == Changes([], [])


@pytest.mark.parametrize(
    "override", ["actor.parallel.tensor=1", "placement.pools.main=4", "actor.max_tokens_per_rank=999"]
)
def test_these_change_the_rounding(override: str) -> None:
    found = compared(override)
    assert found.numbers == [] and any(line.startswith(override.partition("=")[0]) for line in found.sharding)


@pytest.mark.parametrize(
    "override",
    [
        "run.seed=2",
        "actor.optimizer.lr=1e-5",
        "algorithm.prompts_per_step=8",
        "plugins=[json]",
        "reward.grader=last_number",
    ],
)
def test_these_change_the_numbers(override: str) -> None:
    found = compared(override)
    (told,) = found.numbers
    assert told.startswith(f"{override.partition('=')[0]}: ") and "in the checkpoint" in told


def test_the_number_of_steps_matters_if_a_learning_rate_decays_over_them() -> None:
    found = compared("trainer.steps=7", both=("actor.optimizer.decay=cosine",))
    assert found == Changes(["trainer.steps: 300 in the checkpoint, 7 now"], [])
    assert compared("trainer.steps=7", both=("reward_model.optimizer.decay=linear",)) == found


def test_another_schedule_changes_the_numbers() -> None:
    """Unlike the other settings of the loop: rows are sampled from weights of another age."""
    now = load("train", ADDITION)
    before = resolved_yaml(now).replace("schedule: sync", "schedule: other")
    assert changes(before, resolved_yaml(now), now).numbers == ["trainer.schedule: other in the checkpoint, sync now"]


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("max_staleness: null", "max_staleness: 2"),
        ("partial: null", "partial: false"),
        ("sampler: ''", "sampler: fifo"),
        ("spare_prompts: 0", "spare_prompts: 3"),
        ("stopped: next_step", "stopped: drop"),
    ],
)
def test_another_policy_of_the_schedule_changes_the_numbers(line: str, given: str) -> None:
    now = load("train", ADDITION)
    text = resolved_yaml(now)
    assert text.count(f"  {line}\n") == 1
    (told,) = changes(text.replace(f"  {line}\n", f"  {given}\n"), text, now).numbers
    assert told.startswith(f"trainer.{line.partition(':')[0]}: ")


def test_a_key_that_only_one_has_is_told() -> None:
    config = replace(Config())
    assert changes("a: 1\n", "{}", config).numbers == ["a: 1 in the checkpoint, nothing now"]


@pytest.mark.parametrize("set_now", [False, True])
def test_a_checkpoint_from_before_a_setting_goes_on_unless_it_is_set_now(set_now: bool) -> None:
    overrides = ["algorithm.lagrange.min=0.5"] if set_now else []
    now = load("train", [*ADDITION, "algorithm=safe_rlhf", *overrides])
    lines = resolved_yaml(now).splitlines()
    before = "\n".join(line for line in lines if line.strip().partition(":")[0] != "min")
    told = ["algorithm.lagrange.min: nothing in the checkpoint, 0.5 now"]
    assert changes(before, resolved_yaml(now), now).numbers == (told if set_now else [])


@pytest.mark.parametrize("empty", ["", "null", "{}"])
def test_of_an_empty_file_only_what_is_set_now_is_told(empty: str) -> None:
    config = load("train", ["experiment=addition", "run.seed=2"])
    found = changes(empty, resolved_yaml(config), config)
    assert "run.seed: nothing in the checkpoint, 2 now" in found.numbers
    assert not any(line.startswith("trainer.save_every") for line in found.numbers)


@pytest.mark.parametrize("recipe", ["dr_grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"])
def test_a_run_of_before_its_algorithm_was_a_recipe_goes_on(recipe: str) -> None:
    now = load("train", [*ADDITION, f"algorithm={recipe}"])
    former = replace(now.algorithm, name=recipe.removesuffix("_baseline"), recipe="", paper="")
    before = replace(now, algorithm=former)
    assert changes(resolved_yaml(before), resolved_yaml(now), now) == Changes([], [])
    other = replace(now, algorithm=replace(now.algorithm, name="ppo"))
    (told,) = changes(resolved_yaml(before), resolved_yaml(other), other).numbers
    assert told.startswith(f"algorithm.name: {former.name} in the checkpoint, ppo now")


def test_a_run_of_before_settings_were_renamed_goes_on() -> None:
    """Its record has all settings, also those that its algorithm does not heed."""
    now = load("train", ADDITION)
    record = yaml.safe_load(resolved_yaml(now))
    record["algorithm"]["most_draws"] = record["algorithm"].pop("max_draws")
    for name, former in (("max", "most"), ("min", "least")):
        record["algorithm"]["lagrange"][former] = record["algorithm"]["lagrange"].pop(name)
    assert changes(yaml.safe_dump(record), resolved_yaml(now), now) == Changes([], [])
    record["algorithm"]["most_draws"] = 3
    told = ["algorithm.max_draws: 3 in the checkpoint, 10 now"]
    assert changes(yaml.safe_dump(record), resolved_yaml(now), now).numbers == told
