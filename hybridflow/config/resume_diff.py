"""Settings of a resumed run that differ from the interrupted one's, and whether that changes its numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from typing import Any

import yaml
from omegaconf import OmegaConf

from hybridflow.config import sections
from hybridflow.config.schema import Config, Decay, OptimizerConfig
from hybridflow.former_names import FLOWS, SETTINGS

# What a run is called, where it runs, and how long and how much it tells: no number depends on it.
FREE = (
    "run.name",
    "run.root",
    "ray.*",
    "trainer.*",
    "rollout.verify_refit",
    "rollout.recovery",
    "rollout.max_log_prob_diff.*",
    "algorithm.recipe",
    "algorithm.paper",
)
# How old the weights are that rows are sampled from, and which rows a step learns from.
NOT_FREE = tuple(
    f"trainer.{name}" for name in ("schedule", "max_staleness", "partial", "sampler", "spare_prompts", "stopped")
)
# How the work is cut: numbers change by their rounding only.
SHARDING = (
    "*.parallel.*",
    "placement.*",
    "*.max_tokens_per_rank",
    "*.recompute",
    "*.offload.*",
    "*.optimizer.distributed",
    "rollout.max_concurrent_rows",
    "rollout.kv_cache_gib",
    "rollout.gpu_memory_fraction",
    "rollout.enforce_eager",
    "rollout.resharding",
)


@dataclass(frozen=True)
class Changes:
    """Settings that differ, each as `key: a in the checkpoint, b now`.

    Attributes:
        numbers: they change what is computed.
        sharding: they change how the work is split up, and so only the rounding.
    """

    numbers: list[str]
    sharding: list[str]


def changes(before: str, now: str, config: Config) -> Changes:
    """Compare two resolved configurations.

    A setting that the earlier one does not know, as it is older, and that is not set now either, is no difference.

    Args:
        before, now: as YAML, see `compose.resolved_yaml`; `now` is that of `config`.
    """
    sorted_out = Changes([], [])
    new = _unset(before, now)
    for key, description in differences(before, now, "in the checkpoint").items():
        if key in new:
            continue
        free = _matches(key, FREE) and key not in NOT_FREE and not (key == "trainer.steps" and _decays(config))
        if not free:
            (sorted_out.sharding if _matches(key, SHARDING) else sorted_out.numbers).append(description)
    return sorted_out


def differences(before: str, now: str, place: str = "before") -> dict[str, str]:
    """List every setting that differs between two configurations as YAML, by key: `key: a before, b now`."""
    old = _flat(before)
    new = _flat(now)
    name = old.get("algorithm.name")
    # An older version had the same flow by another name.
    if name in FLOWS and new.get("algorithm.name") == FLOWS[name]:
        old["algorithm.name"] = new["algorithm.name"]
    return {
        key: f"{key}: {old.get(key, 'nothing')} {place}, {new.get(key, 'nothing')} now"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    }


def _unset(before: str, now: str) -> set[str]:
    """Return the keys of the schema that only `now` has, with the values of the schema."""
    settings: Any = sections.whole()
    old, new, default = map(_flat, (before, now, _defaults(settings)))
    return {key for key, value in default.items() if key not in old and new.get(key) == value}


def _decays(config: Config) -> bool:
    """Tell whether a learning rate decays over all the steps of the run, so that their number matters."""
    optimizers = (getattr(role, "optimizer", None) for role in vars(config).values())
    return any(own.decay != Decay.constant for own in optimizers if isinstance(own, OptimizerConfig))


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


def _flat(text: str) -> dict[str, Any]:
    """Return the settings in a text of YAML by dotted key, as it is called now; an empty text has none."""
    return {SETTINGS.get(key, key): value for key, value in _parsed(text)}


@lru_cache(maxsize=16)  # one text is compared several times
def _parsed(text: str) -> list[tuple[str, Any]]:
    return list(_leaves(yaml.safe_load(text) or {}))


@lru_cache
def _defaults(settings: type[Config]) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
