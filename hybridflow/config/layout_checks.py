"""Does every role's model, cut as the settings say, fit its pool and its rows? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from hybridflow.config import sharding_checks
from hybridflow.config.schema import Config, Resharding, TrainedRoleConfig
from hybridflow.config.sharding_checks import Sizes

MODEL_ROLES = ("actor", "critic", "cost_critic", "reference", "reward_model")
BY_MODEL = {"reward": "model", "cost": "cost_model"}  # roles that a grader or a model may play, and the latter's worker


@dataclass(frozen=True)
class Facts:
    """Facts that the settings only name.

    Attributes:
        roles: the roles that the algorithm uses.
        models: by role, the sizes of its model; a role whose model could not be read is left out.
        own: the roles of those that a module of the user brings, with their workers. They have no settings.
        tokenizers: by role whose tokenizer could be compared with the actor's, how it differs; empty: it does not.
        idle: keys of settings that the algorithm does not heed.
    """

    roles: tuple[str, ...] = MODEL_ROLES
    models: Mapping[str, Sizes] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    tokenizers: Mapping[str, str] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()


def layouts(config: Config, facts: Facts) -> Iterator[str]:
    """Roles whose ranks do not divide the slots of their pool. Every role's pool must exist, and sizes be above 0."""
    for role in _distinct(config, facts, "pool"):
        yield from _cut(config, role)
    if "actor" in facts.roles and is_disaggregated(config):
        yield from _cut(config, "rollout")


def models(config: Config, facts: Facts) -> Iterator[str]:
    """Models that cannot be cut as asked, or that do not fit the rows or the actor's tokens."""
    for role in _distinct(config, facts, "model"):
        if role in facts.models:
            yield from _model(config, role, facts)
    if "actor" in facts.models:
        yield from sharding_checks.generation(config, facts.models["actor"], disaggregated=is_disaggregated(config))
    for role in trained(config, facts):
        if role in facts.models:
            yield from _head(config, role, facts.models[role].head)


def not_supported(config: Config, facts: Facts) -> Iterator[str]:
    """Kinds of parallelism that have a setting but no engine yet."""
    for role in trained(config, facts):
        given = section(config, role).parallel
        for name, value in (("context", given.context), ("expert", given.expert)):
            if value != 1:
                yield f"{role}.parallel.{name}: {value} given, but {name} parallelism is not supported yet; set it to 1"


def generation(config: Config) -> Iterator[str]:
    """Generation cuts no finer than training, in sizes that divide (HybridFlow, section 5.3)."""
    if is_disaggregated(config):
        if config.rollout.resharding is not Resharding.hybrid:
            yield (
                f"rollout.resharding: {config.rollout.resharding.value} gathers in the actor's processes, but "
                "placement.roles.rollout gives generation a pool of its own; leave one of them out"
            )
        return
    for axis in ("tensor", "pipeline"):
        whole, part = getattr(config.actor.parallel, axis), getattr(config.rollout.parallel, axis)
        if whole % part:
            yield f"rollout.parallel.{axis}: {part} does not divide actor.parallel.{axis} = {whole}"


def pool_of(config: Config, role: str) -> str:
    """Return the pool that a role runs on: the one it is given, else the first."""
    return config.placement.roles.get(role) or next(iter(config.placement.pools))


def is_disaggregated(config: Config) -> bool:
    """Tell whether generation has a pool of its own, away from the actor's processes."""
    pool = config.placement.roles.get("rollout")
    return pool is not None and pool != pool_of(config, "actor")


def trained(config: Config, facts: Facts) -> list[str]:
    """List the roles in use that have a Megatron model."""
    return [role for role in (*MODEL_ROLES, *BY_MODEL) if role in facts.roles and has_model(config, role)]


def has_model(config: Config, role: str) -> bool:
    """Tell whether a role has a Megatron model; reward and cost have one unless their worker is a grader."""
    return role in MODEL_ROLES or (role in BY_MODEL and section(config, role).worker == BY_MODEL[role])


def section(config: Config, role: str) -> TrainedRoleConfig:
    """Return the settings of a role with a model."""
    return cast(TrainedRoleConfig, getattr(config, role))


def _cut(config: Config, role: str) -> Iterator[str]:
    """Does the role's layout fill its pool?"""
    own, pool = section(config, role).parallel, pool_of(config, role)
    ranks, slots = own.tensor * own.pipeline, config.placement.pools[pool]
    if slots % ranks:
        yield (
            f"{role}.parallel: tensor {own.tensor} x pipeline {own.pipeline} = {ranks} ranks do not divide "
            f"the {slots} slots of pool {pool}; change them or placement.pools.{pool}"
        )


def _model(config: Config, role: str, facts: Facts) -> Iterator[str]:
    """Can the model be cut so, and does it fit the rows?"""
    own, model = section(config, role), facts.models[role]
    yield from sharding_checks.training(role, own, model)
    if config.rollout.max_sequence_tokens > model.max_positions:
        yield (
            f"rollout.max_sequence_tokens: {config.rollout.max_sequence_tokens} is more than the "
            f"{model.max_positions} positions of {own.model.path} ({role})"
        )
    actor = facts.models.get("actor")
    strange = [token for token in config.rollout.stop_token_ids if not 0 <= token < model.vocab]
    if role == "actor" and strange:
        yield (
            f"rollout.stop_token_ids: {strange[0]} is no token of the vocabulary of {model.vocab} in {own.model.path}, "
            f"ids 0 to {model.vocab - 1}"
        )
    if differs := facts.tokenizers.get(role):
        yield f"{role}.model.path: its tokens are not the actor's: {differs}"
    elif actor is not None and model.vocab != actor.vocab and role not in facts.tokenizers:
        yield (
            f"{role}.model.path: a vocabulary of {model.vocab} in {own.model.path}, but the actor's has "
            f"{actor.vocab}, and there are no two tokenizer.json to compare; both must use one tokenizer"
        )


def _head(config: Config, role: str, found: str) -> Iterator[str]:
    """Does the model have what the role reads off it? What learns a scalar head of its own may start from either."""
    path = section(config, role).model.path
    if role in BY_MODEL and found != "reward":
        yield f"{role}.model.path: {path} has no score head; hybridflow train-{role} makes a {role} model of it"
    if role in ("actor", "reference") and found != "lm":
        yield f"{role}.model.path: {path} is a reward model; a language model was expected"


def _distinct(config: Config, facts: Facts, by: str) -> list[str]:
    """List the trained roles, but only the first of those that are split alike and share a pool or a model."""
    first: dict[tuple[str, int, int], str] = {}
    for role in trained(config, facts):
        own = section(config, role)
        shared = pool_of(config, role) if by == "pool" else own.model.path
        first.setdefault((shared, own.parallel.tensor, own.parallel.pipeline), role)
    return list(first.values())
