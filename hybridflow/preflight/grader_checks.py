"""Graders that settings name: are they registered, and do they take these options?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hybridflow.config.schema import Config
from hybridflow.errors import HybridFlowError
from hybridflow.preflight import component_checks
from hybridflow.tasks.chosen_graders import REWARD_MODEL, GraderSettings, asked, options, weights
from hybridflow.tasks.grader_registry import bind, graders, options_shell


def problems(section: str, settings: GraderSettings) -> list[str]:
    """List what is wrong with the graders of a section, as `key: what was found; what to do`."""
    key = f"{section}.graders" if settings.graders else f"{section}.grader"
    names = asked(settings)
    unknown = [*_reward_model(section, settings)]
    unknown = unknown or [line for name in names for line in component_checks.unknown_name(key, graders, name)]
    return unknown or [
        *(line for name in names for line in _options(section, settings, name)),
        *_strangers(section, settings, names),
        *_weightless(section, settings),
        *_sources(section, settings),
        *(line for name in names for line in _values_of_tokens(section, name)),
    ]


def of_estimator(config: Config) -> Iterator[str]:
    """Yield settings that change rewards where the estimator reads the grades of several graders as they are."""
    from hybridflow.losses.advantages import advantages, reads_too

    own = config.algorithm
    name = own.advantage.name
    if name not in advantages or "grades" not in reads_too(name) or len(config.reward.graders) < 2:
        return
    changed = {
        "reward_shaping.name": own.reward_shaping.name != "none",
        "reward_shapings": bool(own.reward_shapings),
        "reward_kl_coef": bool(own.reward_kl_coef),
    }
    for key in (key for key, is_set in changed.items() if is_set):
        yield (
            f"algorithm.{key}: no effect, as advantage {name!r} takes the grades of reward.graders as they are; leave "
            "it out, and give what a response should be punished for a grader of its own (the KL stands in "
            "algorithm.policy_loss.kl_coef)"
        )


def _reward_model(section: str, settings: GraderSettings) -> Iterator[str]:
    """Yield what keeps a reward model from being one of several graders."""
    if not asked(settings):
        yield (
            f"{section}.graders: {REWARD_MODEL} alone given, and a validation asks graders only; add the one that says "
            "what is right, with the weight 0 if it is not to be rewarded"
        )
    elif REWARD_MODEL in asked(settings) and REWARD_MODEL not in graders:
        yield (
            f"{section}.graders: {REWARD_MODEL} is the model of reward.worker=model; set that and reward.model.path, "
            "or leave it out"
        )


def _sources(section: str, settings: GraderSettings) -> Iterator[str]:
    """Yield graders that are given sources and are none, or are left without rows."""
    key = f"{section}.grader_sources"
    names = list(weights(settings))
    for name, sources in settings.grader_sources.items():
        if name not in names:
            yield f"{key}.{name}: no grader of the run is named so; there is {', '.join(names)}"
        elif not sources:
            yield f"{key}.{name}: no source given; name those whose rows it grades, or leave it out: then it grades all"


def _options(section: str, settings: GraderSettings, name: str) -> Iterator[str]:
    key = f"{section}.grader_options.{name}"
    given = settings.grader_options.get(name)
    if given is not None and not isinstance(given, Mapping):
        yield f"{key}: {given!r} given; options by name were expected, as {key}.pattern=…"
        return
    wrong = component_checks.wrong_values(key, name, options_shell(graders.get(name)), options(settings, name))
    yield from wrong
    if not wrong:
        try:
            bind(name, options(settings, name))
        except HybridFlowError as error:
            yield f"{key}: {error}"


def _values_of_tokens(section: str, name: str) -> Iterator[str]:
    """Refuse what nobody would read: the values of tokens of a cost."""
    if section == "cost" and graders.gives_token_rewards(name):
        yield f"{section}.grader: {name} gives values of tokens or steps, which costs have none of; use it for rewards"


def _weightless(section: str, settings: GraderSettings) -> Iterator[str]:
    """Report weights that leave nothing of any grade."""
    if settings.graders and not any(settings.graders.values()):
        yield (
            f"{section}.graders: the weight of {' and '.join(settings.graders)} is 0, so all responses would be alike; "
            "give at least one another weight"
        )


def _strangers(section: str, settings: GraderSettings, names: list[str]) -> Iterator[str]:
    """Yield names that are none of the graders'."""
    for name in settings.grader_options:
        if name not in names:
            yield f"{section}.grader_options.{name}: no grader of the run is named so; there is {', '.join(names)}"
    chosen = getattr(settings, "accuracy_grader", "")
    if chosen and chosen not in names:
        yield f"reward.accuracy_grader: {chosen!r} given, which is none of the graders; there is {', '.join(names)}"
