"""Flows that a step's minibatches can be taken through one by one, with the mathematics of all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hybridflow.config import recipes
from hybridflow.config.schema import Config

if TYPE_CHECKING:
    from hybridflow.algorithms import Algorithm

UNHEEDED = ("max_staleness", "partial", "spare_prompts")


def problems(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    """Yield why a schedule that learns in parts would not leave what learning from whole steps does."""
    name = config.trainer.schedule
    for setting in UNHEEDED:
        if (value := getattr(config.trainer, setting)) not in (None, 0):
            yield f"trainer.{setting}: {value} given, which trainer.schedule={name} does not heed; leave it out"
    instead = f"which trainer.schedule={name} cannot learn from in parts; take sync"
    for found in (*_whole_step_settings(config), *_whole_batch_parts(config), *_whole_step_flow(config, algorithm)):
        yield f"{found}, {instead}"


def _whole_step_settings(config: Config) -> Iterator[str]:
    own = config.algorithm
    if own.epochs > 1:
        yield f"algorithm.epochs: {own.epochs} passes over all rows of a step"
    if own.rollout_filter.name != "none":
        yield f"algorithm.rollout_filter.name: {own.rollout_filter.name} chooses among all rows of a step"
    if own.minibatches > 1 and (config.rollout.top_p < 1 or config.rollout.top_k > 0):
        # What later minibatches are compared with is what sampled them: of the tokens that were not cut off.
        yield "rollout.top_p, rollout.top_k: the log-probs that rows are sampled with are of a part of the tokens"


def _whole_batch_parts(config: Config) -> Iterator[str]:
    """Report an advantage or a shaping that was not declared to be of one group alone."""
    from hybridflow.losses.advantages import advantages
    from hybridflow.losses.independence import is_independent
    from hybridflow.losses.reward_shapings import reward_shapings, shapings_by_key

    advantage = config.algorithm.advantage.name
    told = "is not declared `independent` of the batch's other groups"
    if advantage in advantages and not is_independent(advantages.get(advantage)):
        yield f"algorithm.advantage.name: {advantage} {told}"
    for key, (shaping, _) in shapings_by_key(config.algorithm).items():
        if shaping in reward_shapings and not is_independent(reward_shapings.get(shaping)):
            yield f"{key}: {shaping} {told}"


def _whole_step_flow(config: Config, algorithm: type[Algorithm]) -> Iterator[str]:
    from hybridflow.algorithms import Algorithm as Base
    from hybridflow.roles import TrainedRole, roles

    called = f"algorithm.name: {recipes.called(config)}"
    names = [role for role in algorithm.roles_of(config.algorithm) if role in roles and role != algorithm.learner]
    learn = [role for role in names if issubclass(roles.get(role), TrainedRole)]
    if algorithm.learner != "actor" or learn:
        yield f"{called} has other models that learn ({', '.join([algorithm.learner, *learn])})"
    if algorithm.state is not Base.state:
        yield f"{called} has a `state` of its own that goes from step to step"
    if "max_draws" in (algorithm.heeds or ()):
        yield f"{called} draws further prompts within a step (algorithm.max_draws)"
