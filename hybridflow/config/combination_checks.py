"""Combinations of settings that cannot work, all at once. Pure: what is known of models and algorithms is handed in.

Every problem begins with the key to change and a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from hybridflow.config import layout_checks, number_bounds
from hybridflow.config.layout_checks import MODEL_ROLES, Facts, section, trained
from hybridflow.config.schema import SECTIONS, Config

WORD = re.compile(r"\w+")


def problems(config: Config, facts: Facts | None = None) -> list[str]:
    """Everything that cannot work, as `key: what was found; what to do`; without `facts`, what the numbers say."""
    facts = facts or Facts()
    outside = number_bounds.problems(config)
    found = [*_pools(config, facts), *_roles(config, facts), *_data(config, facts), *_rates(config, facts)]
    found += layout_checks.not_supported(config, facts)
    # Sizes are put together only where each of them means something.
    if not any(line.startswith("placement.") for line in found) and not any(".parallel." in line for line in outside):
        found += [
            *layout_checks.layouts(config, facts),
            *layout_checks.models(config, facts),
            *layout_checks.generation(config),
        ]
    # What else is said of a number that is out of its bounds only follows from that.
    names = {line.partition(":")[0].rpartition(".")[2] for line in outside}
    return [*outside, *(line for line in found if names.isdisjoint(WORD.findall(line)))]


def warnings(config: Config, cpus: int, planned: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """List what will work, but not as the user may think.

    Args:
        cpus: cores of this machine.
        planned: by role, the optimizer steps that it will take, of those that learn.
    """
    found = []
    for role, count in planned.items():
        if count and not getattr(config, role).optimizer.lr:
            found.append(f"{role}.optimizer.lr: 0 given: its updates are taken, and leave it as it is")
        warmup = getattr(config, role).optimizer.warmup_steps
        if 0 < count < warmup:
            found.append(
                f"{role}.optimizer.warmup_steps: {warmup} given for a run of {count} updates: "
                "its learning rate never gets to lr"
            )
    slots, idle = sum(config.placement.pools.values()), config.algorithm.critic_warmup_steps
    if config.ray.address == "local" and slots > cpus:
        found.append(f"placement.pools: {slots} slots on {cpus} CPU cores: without as many GPUs, ranks take turns")
    if 0 < config.trainer.steps <= idle and not planned.get("actor"):
        found.append(
            f"algorithm.critic_warmup_steps: {idle} of the {config.trainer.steps} trainer.steps: the actor never learns"
        )
    named = {next(iter(config.placement.pools), None), *config.placement.roles.values()}
    for pool in (pool for pool in config.placement.pools if pool not in named):
        found.append(f"placement.pools.{pool}: no role is placed on it, so it is not started; see placement.roles")
    updates = config.algorithm.minibatches * config.algorithm.epochs
    if config.algorithm.policy_loss.name == "pg" and updates > 1:
        found.append(
            f"algorithm.policy_loss.name: pg has no ratio, so of the {updates} optimiser steps on a rollout only the "
            "first is unbiased; set algorithm.minibatches and algorithm.epochs to 1, or use ppo_clip"
        )
    return found


def _pools(config: Config, facts: Facts) -> Iterator[str]:
    pools = config.placement.pools
    if not pools:
        yield "placement.pools: there is no pool; choose placement=colocated or add +placement.pools.main=2"
    known = SECTIONS | {*facts.own}
    for role, pool in config.placement.roles.items():
        if pool not in pools:
            yield f"placement.roles.{role}: no pool is named {pool!r}; there is {', '.join(pools) or 'none'}"
        if role not in known:
            named = ", ".join((*MODEL_ROLES, *facts.own))
            yield f"placement.roles.{role}: no role is named {role!r}; the configuration has {named}"


def _roles(config: Config, facts: Facts) -> Iterator[str]:
    name, known = config.algorithm.name, SECTIONS | {*facts.own}
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
    for role in trained(config, facts):
        optimizer = getattr(section(config, role), "optimizer", None)
        if optimizer is not None and optimizer.min_lr > optimizer.lr:
            yield (
                f"{role}.optimizer.min_lr: {optimizer.min_lr} is more than {role}.optimizer.lr = {optimizer.lr}, from "
                "which it decays; give at most that"
            )


def _data(config: Config, facts: Facts) -> Iterator[str]:
    algorithm, rollout = config.algorithm, config.rollout
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
    if "" in rollout.stop:
        yield "rollout.stop: an empty string given, which every response ends with; take it out"
    for role in trained(config, facts):
        most = section(config, role).max_tokens_per_rank
        times, unit = (2, "pair") if role == "reward_model" else (1, "row")
        if most < times * rollout.max_sequence_tokens:
            yield (
                f"{role}.max_tokens_per_rank: {most} is less than one {unit} may have "
                f"({times} x rollout.max_sequence_tokens = {rollout.max_sequence_tokens})"
            )
