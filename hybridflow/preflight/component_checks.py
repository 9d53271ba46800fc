"""Components that `algorithm` names: do they take these options, does the flow give what they read?

Losses are written with torch, which is imported to ask them; so this is asked last, of settings that are sound else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hybridflow.config import auto_settings, recipes
from hybridflow.config.schema import Config
from hybridflow.options import faults, nearest, taken_by, takes
from hybridflow.registry import Registry

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm


def problems(config: Config, algorithm: type[Algorithm]) -> list[str]:
    """List everything that is wrong with the components of this algorithm, as `key: what was found; what to do`."""
    return [
        *_options(config, algorithm),
        *_read(config, algorithm),
        *_labels(config, algorithm),
        *_fruitless(config, algorithm),
    ]


def _options(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield options that a component does not take; names that nobody registers are told by `component_names`."""
    from hybridflow.losses.advantages import advantages
    from hybridflow.losses.corrections import corrections
    from hybridflow.losses.kl_controllers import kl_controllers
    from hybridflow.losses.lagrange import Lagrange
    from hybridflow.losses.options import with_options
    from hybridflow.losses.policy_losses import policy_losses
    from hybridflow.losses.reward_shapings import reward_shapings
    from hybridflow.losses.rollout_filters import rollout_filters

    own = config.algorithm
    loss = config.algorithm.policy_loss
    if "advantage" in algorithm.components:
        yield from _component("advantage", advantages, own.advantage.name, own.advantage.options)
    if "policy_loss" in algorithm.components:
        yield from _component("policy_loss", policy_losses, loss.name, loss.options)
        chosen = loss.correction.name
        if chosen == auto_settings.AUTO:  # what it takes is looked at in float32 too, where it comes to nothing
            chosen = "token_truncated"
        yield from _component("policy_loss.correction", corrections, chosen, loss.correction.options)
    wrong = [
        *_component("reward_shaping", reward_shapings, own.reward_shaping.name, own.reward_shaping.options),
        *_several("reward_shapings", reward_shapings, own.reward_shapings),
    ]
    yield from wrong or _refused_shapings(config)
    yield from _component("rollout_filter", rollout_filters, own.rollout_filter.name, own.rollout_filter.options)
    control = own.reward_kl_control
    wrong = list(_component("reward_kl_control", kl_controllers, control.name, control.options))
    if not wrong and control.name in kl_controllers:
        make = with_options(kl_controllers, control.name, control.options)
        wrong = list(_made("reward_kl_control", lambda: make(own.reward_kl_coef)))
    yield from wrong
    if "lagrange" in algorithm.components:
        limits = own.lagrange
        yield from _made("lagrange", lambda: Lagrange(**vars(limits)))


def _read(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield columns that the estimator or a loss reads and nobody gives; losses that nobody registers."""
    from hybridflow.algorithms.columns import readers
    from hybridflow.losses.advantages import advantages, needs
    from hybridflow.losses.aggregations import aggregations
    from hybridflow.losses.loss import losses
    from hybridflow.roles import givers

    settings = config.algorithm
    name = settings.advantage.name
    for loss in algorithm.losses:
        yield from unknown_name("algorithm.name", losses, loss)
        if loss in losses:
            average = losses.get(loss).aggregate
            yield from unknown_name(f"algorithm.name: aggregate of loss {loss!r}", aggregations, average)
    for reader in readers(settings, algorithm):
        for column in reader.missing:
            by = "the sampling of several responses a prompt" if column == "group_id" else ", ".join(givers(column))
            yield (
                f"{reader.key}: {reader.told} reads the column {column!r}, which is given by "
                f"{by or 'no role that is known'}; {recipes.called(config)} does not name it among its columns"
            )
    if "advantage" not in algorithm.components or name not in advantages:
        return
    if "group_id" in needs(name) and settings.samples_per_prompt < 2:
        yield (
            f"algorithm.samples_per_prompt: {settings.samples_per_prompt} given, but advantage {name!r} compares the "
            "samples of a prompt; give 2 or more"
        )


def _labels(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield columns that the loss of pairs reads and the task does not give."""
    from hybridflow.losses.preference_losses import columns_of, pair_losses
    from hybridflow.tasks import PreferenceTask, tasks

    name = config.algorithm.pair_loss
    task = tasks.get(config.task.name)
    if "pair_loss" not in algorithm.components or name not in pair_losses or not issubclass(task, PreferenceTask):
        return
    missing = " and ".join(column for column in columns_of(name) if column not in task.labels)
    if missing:
        yield (
            f"task.name: algorithm.pair_loss = {name} reads {missing}, which {config.task.name} does not give; make it "
            "a hybridflow.tasks.HarmTask, or choose another, such as addition_sevens"
        )


def _fruitless(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Report a filter, ours or a user's, that can never keep a row under these settings: no step would learn."""
    from hybridflow.losses.filter_trial import keeps_nothing
    from hybridflow.losses.options import with_options
    from hybridflow.losses.rollout_filters import rollout_filters

    own = config.algorithm
    limit = config.rollout.max_response_tokens
    name = own.rollout_filter.name
    options = own.rollout_filter.options
    if "rollout_filter" not in algorithm.components or name == "none" or name not in rollout_filters:
        return
    try:
        chosen = with_options(rollout_filters, name, options)
    except ValueError:  # told as an option that is wrong
        return
    if keeps_nothing(chosen, own.prompts_per_step, own.samples_per_prompt, limit):
        yield (
            f"algorithm.rollout_filter.name: {name} keeps no row whatever the rewards are, with samples_per_prompt = "
            f"{own.samples_per_prompt} and responses of {limit} tokens at most, so no step would learn; give "
            "algorithm.samples_per_prompt more than 1 if it compares the samples of a prompt, or set it to none"
        )


def _several(key: str, registry: Registry[Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with components that stand under their names, each with its options."""
    for name, options in components.items():
        above = f"algorithm.{key}"
        if name not in registry:
            continue
        if options is not None and not isinstance(options, Mapping):
            yield f"{above}.{name}: {options!r} given; its options by name were expected, or {{}}"
        else:
            yield from wrong_values(f"{above}.{name}", name, registry.get(name), options or {})


def _refused_shapings(config: Config) -> Iterator[str]:
    """Report options of reward shapings that do not fit together, as the shaping says when it is tried on two rows."""
    import torch

    from hybridflow.losses.reward_shapings import ShapingInputs, shaping, shapings_by_key

    limit = config.rollout.max_response_tokens
    rows = ShapingInputs(torch.tensor([0.0, 1.0]), torch.tensor([1, limit]), limit, ["end", "length"])
    for key, (name, options) in shapings_by_key(config.algorithm).items():
        try:
            shaping(name, options)(rows)
        except ValueError as error:
            yield f"{key}: {error}"
        except Exception:  # of a user's own, which two rows may not suit: the run will show it
            continue


def _component(key: str, registry: Registry[Any], name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a component's options."""
    if name in registry:
        yield from wrong_options(f"algorithm.{key}", name, registry.get(name), options)


def _made(key: str, make: Callable[[], object]) -> Iterator[str]:
    """Yield why it cannot be made with these values."""
    try:
        make()
    except ValueError as error:
        yield f"algorithm.{key}: {error}"


def unknown_name(key: str, registry: Registry[Any], name: str) -> Iterator[str]:
    """Report a name that is not registered, with the nearest one."""
    if name not in registry:
        try:
            registry.get(name)
        except KeyError as error:
            yield f"{key}: {error.args[0]}"


def made_of(key: str, registry: Registry[Any], name: str, *given: str) -> Iterator[str]:
    """Report a name that is not registered, and a class whose constructor does not take what it is given."""
    if name not in registry:
        yield from unknown_name(key, registry, name)
        return
    try:
        inspect.signature(registry.get(name)).bind(*given)
    except TypeError as error:
        yield f"{key}: {name!r} cannot be made: its __init__ is given {' and '.join(given)}; {error}"


def wrong_options(above: str, name: str, component: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[str]:
    """Report the options of a component that it does not take, or not so, a line each; those of another in one line.

    Args:
        above: the key of the component, which has `name` and `options`.
    """
    yield from wrong_values(f"{above}.options", name, component, options)


def wrong_values(key: str, name: str, component: Callable[..., Any], options: Mapping[str, Any]) -> list[str]:
    """List as `wrong_options` what is wrong with the options that stand under a key."""
    wrong = faults(component, options)
    taken = taken_by(component)
    others = [option for option in wrong if option not in taken and not nearest(component, option)]
    lines = [f"{key}.{option}: {trouble}" for option, trouble in wrong.items() if option not in others]
    if others:
        drops = " ".join(f"'~{key}.{option}'" for option in others)
        lines.append(
            f"{key}.{others[0]}: {', '.join(others)} given, but {name} {takes(component)}; set them to "
            f"null in a file, or leave them out on the command line: {drops}"
        )
    return lines
