"""Combinations of settings that cannot work, all at once. Pure: what is known of models and algorithms is handed in.

Every problem begins with the key to change and a colon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, cast

from omegaconf import OmegaConf

from hybridflow.config.schema import Config, Trained

MODEL_ROLES = ("actor", "critic", "reference")

# The smallest value that means anything. Sections of roles that do not take part are not looked at.
AT_LEAST: Mapping[str, float] = {
    "rollout.parallel.tensor": 1,
    "rollout.parallel.pipeline": 1,
    "rollout.temperature": 0,
    "rollout.max_response_tokens": 1,
    "rollout.max_concurrent_rows": 1,
    "algorithm.prompts_per_step": 1,
    "algorithm.samples_per_prompt": 1,
    "algorithm.minibatches": 1,
    "algorithm.epochs": 1,
    "algorithm.critic_warmup_steps": 0,
    "trainer.steps": 1,
    "trainer.validate_every": 0,
    "trainer.validation_prompts": 1,
    "trainer.log_rollouts_every": 0,
    "trainer.collective_timeout_s": 1,
}
FRACTIONS = ("rollout.top_p", "rollout.gpu_memory_fraction")


class Sizes(Protocol):
    """What is asked of a model."""

    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def vocab(self) -> int: ...
    @property
    def max_positions(self) -> int: ...


@dataclass(frozen=True)
class Facts:
    """What the settings only name.

    Attributes:
        roles: the roles that the algorithm uses.
        models: by role, the sizes of its model; a role whose model could not be read is left out.
    """

    roles: tuple[str, ...] = MODEL_ROLES
    models: Mapping[str, Sizes] = field(default_factory=dict)


def problems(config: Config, facts: Facts | None = None) -> list[str]:
    """Everything that cannot work, as `key: what was found; what to do`. Without `facts`, what the numbers alone say."""
    facts = facts or Facts()
    found = [*_ranges(config), *_pools(config), *_roles(config, facts), *_data(config, facts)]
    if not any(problem.startswith(("placement.", "rollout.parallel")) for problem in found):
        found += [problem for role in _distinct(config, facts, "pool") for problem in _cut(config, role)]
    for role in _distinct(config, facts, "model"):
        found += _model(config, role, facts) if role in facts.models else []
    return [*found, *_generation(config)]


def warnings(config: Config, cpus: int) -> list[str]:
    """What will work, but not as the user may think. `cpus`: cores of this machine."""
    slots = sum(config.placement.pools.values())
    if config.ray.address != "local" or slots <= cpus:
        return []
    return [f"placement.pools: {slots} slots on {cpus} CPU cores: without as many GPUs, ranks wait for each other"]


def pool_of(config: Config, role: str) -> str:
    """The pool that a role runs on: the one it is given, else the first."""
    return config.placement.roles.get(role) or next(iter(config.placement.pools))


def _ranges(config: Config) -> Iterator[str]:
    tree = OmegaConf.structured(config)
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(tree, key)
        if value < least:
            yield f"{key}: {value} given, at least {least} expected"
    for key in FRACTIONS:
        value = OmegaConf.select(tree, key)
        if not 0 < value <= 1:
            yield f"{key}: {value} given, expected more than 0 and at most 1"


def _pools(config: Config) -> Iterator[str]:
    pools = config.placement.pools
    if not pools:
        yield "placement.pools: there is no pool; choose placement=colocated or add +placement.pools.main=2"
    for name, slots in pools.items():
        if slots < 1:
            yield f"placement.pools.{name}: {slots} slots given, at least 1 expected"
    known = {entry.name for entry in fields(Config)}
    for role, pool in config.placement.roles.items():
        if pool not in pools:
            yield f"placement.roles.{role}: no pool is named {pool!r}; there is {', '.join(pools) or 'none'}"
        if role not in known:
            yield f"placement.roles.{role}: no role is named {role!r}; the configuration has {', '.join(MODEL_ROLES)}"


def _roles(config: Config, facts: Facts) -> Iterator[str]:
    name, known = config.algorithm.name, {entry.name for entry in fields(Config)}
    for role in facts.roles:
        if role not in known:
            yield f"algorithm.name: {name} needs the role {role}, for which the configuration has no section"
    wants = {
        "algorithm.critic_warmup_steps": (config.algorithm.critic_warmup_steps, "critic"),
        "algorithm.reward_kl_coef": (config.algorithm.reward_kl_coef, "reference"),
        "algorithm.policy_loss.kl_coef": (config.algorithm.policy_loss.kl_coef, "reference"),
    }
    for key, (value, role) in wants.items():
        if value and role not in facts.roles:
            yield f"{key}: {value} needs the role {role}, which {name} does not use; set it to 0"


def _data(config: Config, facts: Facts) -> Iterator[str]:
    algorithm, rollout = config.algorithm, config.rollout
    rows = algorithm.prompts_per_step * algorithm.samples_per_prompt
    if rows < algorithm.minibatches:
        yield (
            f"algorithm.minibatches: {algorithm.minibatches} minibatches of {rows} rows "
            "(prompts_per_step x samples_per_prompt) would leave some empty; use fewer"
        )
    if algorithm.critic_warmup_steps >= config.trainer.steps:
        yield (
            f"algorithm.critic_warmup_steps: {algorithm.critic_warmup_steps} of {config.trainer.steps} steps "
            "(trainer.steps) would leave none to the actor"
        )
    if rollout.max_response_tokens >= rollout.max_sequence_tokens:
        yield (
            f"rollout.max_response_tokens: {rollout.max_response_tokens} leaves no room for a prompt in "
            f"rollout.max_sequence_tokens = {rollout.max_sequence_tokens}"
        )
    for role in _trained(facts):
        most = _section(config, role).max_tokens_per_rank
        if most < rollout.max_sequence_tokens:
            yield (
                f"{role}.max_tokens_per_rank: {most} is less than one row may have "
                f"(rollout.max_sequence_tokens = {rollout.max_sequence_tokens})"
            )


def _cut(config: Config, role: str) -> Iterator[str]:
    """Does the role's layout fill its pool?"""
    cut, pool = _section(config, role).parallel, pool_of(config, role)
    if min(cut.tensor, cut.pipeline) < 1:
        yield f"{role}.parallel: tensor {cut.tensor} and pipeline {cut.pipeline} given, at least 1 expected"
        return
    ranks, slots = cut.tensor * cut.pipeline, config.placement.pools[pool]
    if slots % ranks:
        yield (
            f"{role}.parallel: tensor {cut.tensor} x pipeline {cut.pipeline} = {ranks} ranks do not divide "
            f"the {slots} slots of pool {pool}; change them or placement.pools.{pool}"
        )


def _model(config: Config, role: str, facts: Facts) -> Iterator[str]:
    """Can the model be cut so, and does it fit the rows?"""
    section, model = _section(config, role), facts.models[role]
    tensor, pipeline = section.parallel.tensor, section.parallel.pipeline
    if tensor > 0 and model.heads % tensor:
        yield f"{role}.parallel.tensor: {tensor} does not divide the {model.heads} attention heads of {section.model.path}"
    elif tensor > 0 and model.kv_heads % tensor and tensor % model.kv_heads:
        yield f"{role}.parallel.tensor: {tensor} and the {model.kv_heads} key/value heads do not divide one another"
    if pipeline > 0 and model.layers % pipeline:
        yield f"{role}.parallel.pipeline: {pipeline} does not divide the {model.layers} layers of {section.model.path}"
    if config.rollout.max_sequence_tokens > model.max_positions:
        yield (
            f"rollout.max_sequence_tokens: {config.rollout.max_sequence_tokens} is more than the "
            f"{model.max_positions} positions of {section.model.path} ({role})"
        )
    actor = facts.models.get("actor")
    if actor is not None and model.vocab != actor.vocab:
        yield (
            f"{role}.model.path: a vocabulary of {model.vocab} in {section.model.path}, but the actor's has "
            f"{actor.vocab}; both must use one tokenizer"
        )


def _generation(config: Config) -> Iterator[str]:
    """Generation cuts no finer than training, in sizes that divide (HybridFlow, section 5.3)."""
    train, generate = config.actor.parallel, config.rollout.parallel
    for axis in ("tensor", "pipeline"):
        whole, part = getattr(train, axis), getattr(generate, axis)
        if part > 0 and whole % part:
            yield f"rollout.parallel.{axis}: {part} does not divide actor.parallel.{axis} = {whole}"


def _trained(facts: Facts) -> list[str]:
    return [role for role in MODEL_ROLES if role in facts.roles]


def _distinct(config: Config, facts: Facts, by: str) -> list[str]:
    """The trained roles, but only the first of those that are cut alike and share a pool or a model."""
    first: dict[tuple[str, int, int], str] = {}
    for role in _trained(facts):
        section = _section(config, role)
        shared = pool_of(config, role) if by == "pool" else section.model.path
        first.setdefault((shared, section.parallel.tensor, section.parallel.pipeline), role)
    return list(first.values())


def _section(config: Config, role: str) -> Trained:
    return cast(Trained, getattr(config, role))
