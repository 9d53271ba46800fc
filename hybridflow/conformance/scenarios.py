"""Scenarios: settings to take two steps under, so that each thing that modules register stands in one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from hybridflow.algorithms import Algorithm, algorithms
from hybridflow.config import compose, sections
from hybridflow.config.model_roles import BY_MODEL, MODEL_ROLES, names
from hybridflow.config.schema import AdvantageConfig, ComponentConfig, Config
from hybridflow.conformance.discovery import Registered
from hybridflow.errors import ConfigError
from hybridflow.losses.advantages import needs
from hybridflow.placement.hardware import local_gpus
from hybridflow.roles import roles

SIZES = (
    "algorithm.prompts_per_step=9",
    "algorithm.critic_warmup_steps=0",
    "rollout.max_concurrent_rows=72",
    "trainer.steps=2",
    "trainer.collective_timeout_s=60",
    "trainer.call_timeout_s=120",
    "reward.grader=conformance_even",
    "cost.grader=conformance_count",
    "actor.parallel.tensor=1",
)
SLOTS = 2  # so that rows are shared out
MAX_SAMPLES = 8
HOSTS = ("grpo", "ppo", "remax", "safe_rlhf")  # flows of ours that a component of the user's may stand in


@dataclass(frozen=True)
class Scenario:
    """Two steps under settings of their own; `what` is tried by them, in words."""

    what: str
    config: Config

    @property
    def algorithm(self) -> type[Algorithm]:
        """Algorithm's class."""
        return algorithms.get(self.config.algorithm.name)


@dataclass(frozen=True)
class ScenarioBuilder:
    """Builder of the scenarios of what was found.

    Attributes:
        model: the folder of a tiny model.
        modules: the user's.
        folder: with options of the user's, or None.
        overrides: settings of all scenarios, as on the command line: what a role of the user's must be given.
        loaded: settings by option, as they are needed.
    """

    found: Registered
    model: Path
    modules: Sequence[str]
    folder: Path | None
    overrides: Sequence[str] = ()
    loaded: dict[str, Config] = field(default_factory=dict)

    def scenarios(self) -> list[Scenario]:
        """List options that name what was found, algorithms without an option, and components that stand in neither."""
        scenarios = [*self._options()]
        named = {scenario.config.algorithm.name for scenario in scenarios}
        scenarios += [self._of_algorithm(name) for name in self.found["algorithm"] if name not in named]
        standing = {
            (kind, component.name) for scenario in scenarios for kind, component in _components(scenario.config)
        }
        for kind, put_into in PUT_INTO.items():
            for name in self.found[kind]:
                if (kind, name) not in standing:
                    host = self._host(scenarios, kind, name)
                    scenarios.append(Scenario(f"{kind} {name!r}", put_into(host, name)))
        extra = self.extra_roles()
        if not scenarios and extra:
            return [Scenario(f"role {', '.join(extra)}, built beside grpo", self._load("grpo"))]
        return scenarios

    def extra_roles(self) -> list[str]:
        """List the roles that are the user's own or have a worker of the user's, called by a scenario or not."""
        return [*self.found["role"], *self._replaced()]

    def _options(self) -> Iterator[Scenario]:
        ours = {file.stem for file in (compose.configs_dir() / "algorithm").glob("*.yaml")}
        for option in compose.options("algorithm", self.folder):
            if option not in ours and self._is_theirs(option):
                yield Scenario(f"algorithm={option}", self._load(option))

    def _is_theirs(self, option: str) -> bool:
        """Tell whether an option names anything of these modules: a folder may have those of other modules too."""
        try:
            config = self._load(option)
        except ConfigError:  # it cannot be read without its own modules, or it has a mistake
            return self._is_named_in(option)
        named = [*_components(config), ("algorithm", config.algorithm)]
        return any(component.name in self.found[kind] for kind, component in named)

    def _is_named_in(self, option: str) -> bool:
        file = (self.folder or Path()) / "algorithm" / f"{option}.yaml"
        if not file.is_file():
            return False
        words = set(re.findall(r"[\w.-]+", file.read_text(encoding="utf-8", errors="replace")))
        return any(name in words for components in self.found.values() for name in components)

    def _of_algorithm(self, name: str) -> Scenario:
        """Build a scenario under the settings of one of ours that is like it."""
        cls = self.found["algorithm"][name]
        like = "sft" if cls.supervised and not cls.components else "grpo"
        if cls.preferences:
            like = "reward_model" if cls.learner == "reward_model" else "dpo"
        elif "critic" in cls.roles:
            like = "safe_rlhf" if "cost" in cls.roles else "ppo"
        config = self._load(like)
        own = replace(config.algorithm, name=name)
        if "reference" not in cls.roles:
            own = replace(own, reward_kl_coef=0.0, policy_loss=replace(own.policy_loss, kl_coef=0.0))
        return Scenario(f"algorithm {name!r}", replace(config, algorithm=own))

    def _host(self, scenarios: Sequence[Scenario], kind: str, name: str) -> Config:
        """Return the settings of a flow that gives what the component reads; of the user's, if there is one."""
        if kind != "advantage estimator":
            return self._load("grpo")
        for config in chain((scenario.config for scenario in scenarios), map(self._load, HOSTS)):
            if config.algorithm.name not in algorithms:
                continue
            cls = algorithms.get(config.algorithm.name)
            if "advantage" in cls.components and set(needs(name)) <= set(cls.columns):
                return config
        return self._load("grpo")  # that a column is missing is told when the settings are checked

    def _load(self, option: str) -> Config:
        """Compose an option once, which takes long; what is made of it is a changed copy."""
        if option not in self.loaded:
            self.loaded[option] = self._composed(option)
        return self.loaded[option]

    def _composed(self, option: str) -> Config:
        own = [f"algorithm={option}", f"actor.model.path={self.model}"]
        own += [f"{role}.worker={name}" for role, name in self._replaced().items()]
        own += [f"placement.pools.main={_slots()}"]
        models = names(sections.whole()())
        own += [f"{role}.model.path={self.model}" for role in sections.added() if role in models]
        composed = compose.compose("train", ["experiment=addition", *own, *SIZES, *self.overrides], self.folder)
        if absent := composed.absent:
            raise ConfigError(
                "\n".join(
                    f"{key}: must be given (algorithm={option}); add {key}=VALUE after the modules" for key in absent
                )
            )
        config = composed.to_config()
        algorithm = config.algorithm
        pairs = algorithm.name in algorithms and algorithms.get(algorithm.name).preferences
        return replace(
            config,
            algorithm=replace(algorithm, samples_per_prompt=min(algorithm.samples_per_prompt, MAX_SAMPLES)),
            task=replace(config.task, name="addition_pairs" if pairs else config.task.name),
            plugins=list(self.modules),
        )

    def _replaced(self) -> dict[str, str]:
        """Return by role of ours the first of the user's workers for it."""
        taken: dict[str, str] = {}
        for name, cls in self.found["worker"].items():
            for role in (*MODEL_ROLES, *BY_MODEL):
                if name not in roles and issubclass(cls, roles.get(role)):
                    taken.setdefault(role, name)
        return taken


def _slots() -> int:
    """Return so many slots as there are GPUs for, where there are any."""
    return min(SLOTS, local_gpus()) or SLOTS


def _components(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield the components that settings name, by the kind of their registry."""
    own = config.algorithm
    yield from (
        ("advantage estimator", own.advantage),
        ("reward shaping", own.reward_shaping),
        ("rollout filter", own.rollout_filter),
        ("rollout correction", own.policy_loss.correction),
        ("policy loss", own.policy_loss),
        ("KL controller", own.reward_kl_control),
        ("loss aggregation", ComponentConfig(own.policy_loss.aggregate)),
        ("KL estimator", ComponentConfig(own.policy_loss.kl_estimator)),
    )


def _with(config: Config, **changes: Any) -> Config:
    return replace(config, algorithm=replace(config.algorithm, **changes))


def _with_loss(config: Config, **changes: Any) -> Config:
    return _with(config, policy_loss=replace(config.algorithm.policy_loss, **changes))


PUT_INTO: dict[str, Callable[[Config, str], Config]] = {
    "advantage estimator": lambda config, name: _with(config, advantage=AdvantageConfig(name)),
    "reward shaping": lambda config, name: _with(config, reward_shaping=ComponentConfig(name)),
    "rollout filter": lambda config, name: _with(config, rollout_filter=ComponentConfig(name)),
    "rollout correction": lambda config, name: _with_loss(config, correction=ComponentConfig(name)),
    "policy loss": lambda config, name: _with_loss(config, name=name, options={}),
    "loss aggregation": lambda config, name: _with_loss(config, aggregate=name),
    "KL estimator": lambda config, name: _with_loss(config, kl_coef=0.01, kl_estimator=name),
    "KL controller": lambda config, name: _with(config, reward_kl_coef=0.01, reward_kl_control=ComponentConfig(name)),
}
