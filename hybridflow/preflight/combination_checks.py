"""Combinations of settings that cannot work, all at once. Pure: what is known of models and algorithms is handed in.

Every problem begins with the key to change and a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from hybridflow.config import number_bounds, recipes
from hybridflow.config.model_roles import section, with_models
from hybridflow.config.schema import SECTIONS, Config, Device, RolloutRecovery
from hybridflow.placement import Placement
from hybridflow.placement import problems as placement_problems
from hybridflow.preflight import model_checks
from hybridflow.preflight.component_checks import unknown_name
from hybridflow.preflight.model_checks import Facts
from hybridflow.roles import roles
from hybridflow.tasks.chosen_graders import asked
from hybridflow.tasks.grader_registry import graders

WORD = re.compile(r"\w+")


def problems(config: Config, facts: Facts | None = None) -> list[str]:
    """List everything that cannot work, as `key: what was found; what to do`; without `facts`, what the numbers say."""
    facts = facts or Facts()
    outside = number_bounds.problems(config)
    lines = [*_placed_roles(config, facts), *placement_problems(config, facts.roles, facts.gpus, facts.cpus)]
    lines += [*_roles(config, facts), *_data(config, facts), *_rates(config, facts), *_profiled_steps(config)]
    lines += model_checks.not_supported(config, facts)
    if not any(".parallel." in line for line in outside):  # else sizes that mean nothing would be put together
        lines += model_checks.models(config, facts)
    # What else is said of a number that is out of its bounds only follows from that.
    names = {line.partition(":")[0].rpartition(".")[2] for line in outside}
    return [*outside, *(line for line in lines if names.isdisjoint(WORD.findall(line)))]


def warnings(
    config: Config, placed: Placement, cpus: int, planned: Mapping[str, int] = MappingProxyType({})
) -> list[str]:
    """List what will work, but not as the user may think.

    Args:
        placed: where the roles of these settings run.
        cpus: cores of this machine.
        planned: by role, the optimizer steps that it will take, of those that learn.
    """
    return [
        *_idle_learners(config, planned),
        *_idle_slots(config, placed, cpus),
        *_biased_updates(config),
        *_turns_without_rewards(config),
    ]


def _idle_learners(config: Config, planned: Mapping[str, int]) -> Iterator[str]:
    """Yield roles that learn nothing, or never at their full rate."""
    for role, count in planned.items():
        if count and not getattr(config, role).optimizer.lr:
            yield f"{role}.optimizer.lr: 0 given: its updates are taken, and leave it as it is"
        warmup = getattr(config, role).optimizer.warmup_steps
        if 0 < count < warmup:
            yield (
                f"{role}.optimizer.warmup_steps: {warmup} given for a run of {count} updates: "
                "its learning rate never gets to lr"
            )
    idle = config.algorithm.critic_warmup_steps
    if 0 < config.trainer.steps <= idle and not planned.get("actor"):
        yield (
            f"algorithm.critic_warmup_steps: {idle} of the {config.trainer.steps} trainer.steps: the actor never learns"
        )


def _idle_slots(config: Config, placed: Placement, cpus: int) -> Iterator[str]:
    """Yield slots that wait for each other's CPU core, and pools that nobody is on."""
    on_cpus = all(pool.device is Device.cpu for pool in placed.pools)
    if config.ray.address == "local" and on_cpus and placed.slots > cpus:
        yield f"placement.pools: {placed.slots} slots on {cpus} CPU cores: ranks take turns"
    # A pool of an option is for a role that not every algorithm has.
    used = {pool.name for pool in placed.pools} | {*config.placement.roles.values()}
    for pool in (pool for pool in config.placement.pools if pool not in used):
        yield f"placement.pools.{pool}: no role is placed on it, so it is not started; see placement.roles"


def _biased_updates(config: Config) -> Iterator[str]:
    """Yield losses that are unbiased in the first update on a rollout only, where there are more."""
    updates = config.algorithm.minibatches * config.algorithm.epochs
    if config.algorithm.policy_loss.name == "pg" and updates > 1:
        yield (
            f"algorithm.policy_loss.name: pg has no ratio, so of the {updates} optimizer steps on a rollout only the "
            "first is unbiased; set algorithm.minibatches and algorithm.epochs to 1, or use ppo_clip"
        )


def _turns_without_rewards(config: Config) -> Iterator[str]:
    """Yield advantages of turns where all rewards of a conversation stand in its last one."""
    apart = any(graders.gives_token_rewards(name) for name in asked(config.reward))
    if config.environment.name and config.algorithm.advantage.options.get("per_turn") and not apart:
        yield (
            f"algorithm.advantage.options.per_turn: turns are compared by their rewards, and the last turn has all of "
            f"them with {' and '.join(asked(config.reward)) or 'no grader'}; choose reward.grader=environment_turns"
        )


def _placed_roles(config: Config, facts: Facts) -> Iterator[str]:
    """Yield names in settings by role that no role has."""
    for key, named in (
        ("placement.roles", config.placement.roles),
        ("trainer.call_timeouts_s", config.trainer.call_timeouts_s),
    ):
        for role in (role for role in named if role not in facts.own):
            yield from unknown_name(f"{key}.{role}", roles, role)


def _roles(config: Config, facts: Facts) -> Iterator[str]:
    name = recipes.called(config)
    known = SECTIONS | {*facts.own}
    for role in facts.roles:
        if role not in known:
            yield (
                f"algorithm.name: {name} needs the role {role}, for which the configuration has no section; name the "
                "module under plugins that registers it, by @roles.register and @workers.register"
            )
    wants = {
        "algorithm.critic_warmup_steps": (config.algorithm.critic_warmup_steps, "critic"),
        "algorithm.reward_kl_coef": (config.algorithm.reward_kl_coef, "reference"),
        "algorithm.policy_loss.kl_coef": (config.algorithm.policy_loss.kl_coef, "reference"),
    }
    for key, (value, role) in wants.items():
        if value and role not in facts.roles and key not in facts.idle:
            yield f"{key}: {value} needs the role {role}, which {name} does not use; set it to 0"


def _rates(config: Config, facts: Facts) -> Iterator[str]:
    for role in with_models(config, facts.roles):
        optimizer = getattr(section(config, role), "optimizer", None)
        if optimizer is not None and optimizer.min_lr > optimizer.lr:
            yield (
                f"{role}.optimizer.min_lr: {optimizer.min_lr} is more than {role}.optimizer.lr = {optimizer.lr}, from "
                "which it decays; give at most that"
            )


def _profiled_steps(config: Config) -> Iterator[str]:
    given = config.trainer.profile_steps
    steps = config.trainer.steps
    if len({*given}) < len(given) or any(step >= steps for step in given):
        expected = f"steps from 0 to {steps - 1}, each once, were expected" if steps else "none was expected"
        yield f"trainer.profile_steps: {given} given; {expected}, as trainer.steps = {steps}"


def _data(config: Config, facts: Facts) -> Iterator[str]:
    algorithm = config.algorithm
    rollout = config.rollout
    rows = algorithm.prompts_per_step * algorithm.samples_per_prompt
    if rows < algorithm.minibatches:
        yield (
            f"algorithm.minibatches: {algorithm.minibatches} minibatches of {rows} rows "
            "(prompts_per_step x samples_per_prompt) would leave some empty; use fewer"
        )
    if rollout.max_response_tokens >= rollout.max_sequence_tokens:
        yield (
            f"rollout.max_response_tokens: {rollout.max_response_tokens} leaves no room for a prompt in "
            f"rollout.max_sequence_tokens = {rollout.max_sequence_tokens}"
        )
    if rollout.recovery is RolloutRecovery.durable and not rollout.verify_refit:
        yield (
            "rollout.recovery: durable keeps rows of the very weights that are sampled from, which it knows by the "
            "fingerprints of rollout.verify_refit; set that to true, or give exact"
        )
    if "" in rollout.stop:
        yield "rollout.stop: an empty string given, which every response ends with; take it out"
    for role in with_models(config, facts.roles):
        budget = section(config, role).max_tokens_per_rank
        times, unit = (2, "pair") if role == "reward_model" else (1, "row")
        if budget < times * rollout.max_sequence_tokens:
            yield (
                f"{role}.max_tokens_per_rank: {budget} is less than one {unit} may have "
                f"({times} x rollout.max_sequence_tokens = {rollout.max_sequence_tokens})"
            )
