"""Models of roles: does each, sharded as the settings say, fit its engine, the rows and the actor's tokens? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hybridflow.config.model_roles import BY_MODEL, MODEL_ROLES, section, with_models
from hybridflow.config.schema import Config
from hybridflow.models import Head, ModelShape
from hybridflow.placement import started_roles
from hybridflow.preflight import sharding_checks


@dataclass(frozen=True)
class Facts:
    """Facts that the settings only name.

    Attributes:
        roles: the roles that the algorithm uses.
        models: by role, the sizes of its model; a role whose model could not be read is left out.
        own: the roles of those that a module of the user brings, with their workers.
        tokenizers: by role whose tokenizer could be compared with the actor's, how it differs; empty: it does not.
        idle: keys of settings that the algorithm does not heed.
        gpus, cpus: how many the cluster has; None: that is not known yet.
    """

    roles: tuple[str, ...] = MODEL_ROLES
    models: Mapping[str, ModelShape] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    tokenizers: Mapping[str, str] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    gpus: int | None = None
    cpus: int | None = None


def models(config: Config, facts: Facts) -> Iterator[str]:
    """Yield models that cannot be sharded as asked, or that do not fit the rows or the actor's tokens."""
    for role in _distinct(config, facts):
        if role in facts.models:
            yield from _model(config, role, facts)
    if "actor" in facts.models:
        disaggregated = "rollout" in started_roles(config, facts.roles)
        yield from sharding_checks.generation(config, facts.models["actor"], disaggregated=disaggregated)
    for role in with_models(config, facts.roles):
        if role in facts.models:
            yield from _head(config, role, facts.models[role].head)


def not_supported(config: Config, facts: Facts) -> Iterator[str]:
    """Yield kinds of parallelism that have a setting, but that a role's engine has not."""
    for role in with_models(config, facts.roles):
        yield from sharding_checks.parallelism(role, section(config, role))


def _model(config: Config, role: str, facts: Facts) -> Iterator[str]:
    """Yield what keeps a model from being sharded so, and from the rows that it is given."""
    own = section(config, role)
    model = facts.models[role]
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


def _head(config: Config, role: str, head: Head) -> Iterator[str]:
    """Yield a model that lacks the head of its role; what learns a scalar head of its own may start from either."""
    path = section(config, role).model.path
    if role in BY_MODEL and head is not Head.reward:
        yield f"{role}.model.path: {path} has no score head; hybridflow train-{role} makes a {role} model of it"
    if role in ("actor", "reference") and head is not Head.lm:
        yield f"{role}.model.path: {path} is a reward model; a language model was expected"


def _distinct(config: Config, facts: Facts) -> list[str]:
    """Return the roles with a model, but only the first of those that shard one model alike."""
    first: dict[tuple[str, str, int, int], str] = {}
    for role in with_models(config, facts.roles):
        own = section(config, role)
        first.setdefault((own.model.path, own.engine, own.parallel.tensor, own.parallel.pipeline), role)
    return list(first.values())
