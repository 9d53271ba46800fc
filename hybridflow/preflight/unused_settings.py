"""Settings that have no effect, as the algorithm does not heed them: refused if they were meant for it, else told.

Meant for it is what the command line sets, or the algorithm's own option file. An experiment and other files may set
what another algorithm heeds, so that one experiment serves several: `experiment=addition algorithm=dpo`.

An algorithm declares what it heeds (`heeds`, `components`). One that does not is held to its components alone: what
else its flow reads, nobody knows. So is a class derived from one of ours, which may read more, until it declares it
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridflow.config import recipes, sections
from hybridflow.config.model_roles import BY_MODEL, section
from hybridflow.config.provenance import Origins
from hybridflow.config.schema import SECTIONS, AlgorithmConfig, Config, TrainedRoleConfig

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm as Flow

NAMED = (
    "reward_shaping",
    "reward_shapings",
    "rollout_filter",
    "reward_kl_control",
    "pair_loss",
)  # components that `components` must name
ALWAYS = ("name", "recipe", "paper", "prompts_per_step", "minibatches", "epochs")
# Settings of these are often taken over by other sections (`${actor.parallel.tensor}`), or are needed to validate.
SHARED = ("actor", "reward")


def idle(config: Config, algorithm: type[Flow]) -> frozenset[str]:
    """Return the keys of settings that are not at their defaults and that this algorithm has no use for."""
    return frozenset(key for key, _ in _idle(config, algorithm))


def problems(config: Config, algorithm: type[Flow], origins: Origins | None = None) -> list[str]:
    """List what was set for this algorithm and has no effect on it, as `key: what was found; what to do`.

    Args:
        origins: where settings were made; if that is not known, only components that are named in vain are reported.
    """
    idle_settings = _idle(config, algorithm)
    if origins is None:
        return [problem for key, problem in idle_settings if key.split(".")[1] in NAMED]
    return [problem for key, problem in idle_settings if _meant(origins, key)]


def warnings(config: Config, algorithm: type[Flow], origins: Origins, ours: Path) -> list[str]:
    """List what was set otherwise and has no effect: in files that are not ours, and for roles that the run does not
    use.

    Args:
        ours: the folder of our own options, which are known to serve several algorithms.
    """
    lines = []
    for key, _ in _idle(config, algorithm):
        layer = origins.layer(key)
        if not _meant(origins, key) and layer is not None and ours not in layer.file.resolve().parents:
            lines.append(origins.annotate(f"{key}: no effect, as {recipes.called(config)} does not heed it"))
    return [*lines, *_absent(config, origins, algorithm), *_of_no_model(config, origins, algorithm)]


def _absent(config: Config, origins: Origins, algorithm: type[Flow]) -> Iterator[str]:
    """Yield sections of roles that take no part, if the command line sets something in them."""
    called = algorithm.roles_of(config.algorithm)
    for override in origins.overrides:
        role, _, below = override.key_or_group.partition(".")
        of_a_role = role in sections.added() or (role in SECTIONS and hasattr(getattr(config, role), "worker"))
        if of_a_role and below and role not in (*called, *SHARED) and override.input_line not in origins.shared:
            yield f"{override.input_line}: no effect, as {recipes.called(config)} has no role {role}"


def _of_no_model(config: Config, origins: Origins, algorithm: type[Flow]) -> Iterator[str]:
    """Yield what the command line sets of a model where the role has a grader of ours, which has none."""
    of_models = {entry.name for entry in fields(TrainedRoleConfig)} - {"worker"}
    for override in origins.overrides:
        role, _, below = override.key_or_group.partition(".")
        called = role in BY_MODEL and role in algorithm.roles_of(config.algorithm)
        graded = called and section(config, role).worker == role
        if graded and below.partition(".")[0] in of_models and override.input_line not in origins.shared:
            yield (
                f"{override.input_line}: no effect, as {role}.worker = {role} is a grader, which has no model; "
                f"{role}.worker={BY_MODEL[role]} makes it one"
            )


def _idle(config: Config, algorithm: type[Flow]) -> Iterator[tuple[str, str]]:
    """Yield by key the settings that are not at their defaults and that this algorithm has no use for."""
    heeds = vars(algorithm).get("heeds")
    default = AlgorithmConfig()
    shaped = ("reward_shapings",) if "reward_shaping" in algorithm.components else ()
    read = (*ALWAYS, *(heeds or ()), *algorithm.components, *shaped)
    for entry in (entry for entry in fields(AlgorithmConfig) if entry.name not in read):
        if heeds is not None or entry.name in NAMED:
            value = getattr(config.algorithm, entry.name)
            usual = getattr(default, entry.name)
            for key, actual, expected in _changed(f"algorithm.{entry.name}", value, usual):
                more = "" if heeds is not None else f"; a flow that has names {entry.name} among its `components`"
                described = (
                    f"{actual} given, but {recipes.called(config)} has no use for it; {_way_out(expected)}{more}"
                )
                yield key, f"{key}: {described}"


def _way_out(expected: Any) -> str:
    return "leave it out" if isinstance(expected, dict) else f"leave it out, or set it to {expected}"


def _changed(key: str, value: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield leaves that differ from their default: key, value, default."""
    if is_dataclass(value):
        for entry in fields(value):
            yield from _changed(f"{key}.{entry.name}", getattr(value, entry.name), getattr(default, entry.name))
    elif value != default:
        yield key, value, default


def _meant(origins: Origins, key: str) -> bool:
    """Tell whether the command line, for this command alone, or the option of group `algorithm` set it last."""
    override = origins.override(key)
    if override is not None:
        return override.input_line not in origins.shared
    layer = origins.layer(key)
    return layer is not None and layer.package == "algorithm"
