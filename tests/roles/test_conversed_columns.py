"""With an environment, generation reads what it is to be told and gives what a conversation has; without, neither."""

from __future__ import annotations

import pytest

from hybridflow.config.schema import Config
from hybridflow.dispatch import Method, methods, with_columns
from hybridflow.roles import ActorRole, Role
from hybridflow.roles.builtin_roles import CONVERSED, QUESTION
from hybridflow.roles.rollout import RolloutRole, TrainingActorRole


@pytest.mark.parametrize("role", [ActorRole, TrainingActorRole, RolloutRole])
@pytest.mark.parametrize("method", ["generate_sequences", "stream_sequences"])
def test_generation_declares_a_conversation_where_it_is_one(role: type[Role], method: str) -> None:
    config = Config()
    declared = methods(role)
    assert with_columns(declared, role.more_columns(config), role.more_read(config)) == declared
    config.environment.name = "guess"
    before = declared[method]
    after = with_columns(declared, role.more_columns(config), role.more_read(config))
    assert after[method].gives == (*(before.gives or ()), *CONVERSED)
    assert after[method].optional == (*before.optional, *QUESTION)
    assert after[method].needs == before.needs and after[method].streams == before.streams
    samples = [name for name in after if "sequences" in name or name == "advance_rollouts"]
    assert {name for name in after if after[name] != declared[name]} == {*samples}


def test_rows_that_are_sampled_over_many_calls_are_told_what_those_of_one_call_are() -> None:
    config = Config()
    config.environment.name = "guess"
    read = {name: {*(method.needs or ()), *method.optional} for name, method in _declared(RolloutRole, config).items()}
    assert read["advance_rollouts"] - {"rollout_id"} == read["generate_sequences"]


def _declared(role: type[Role], config: Config) -> dict[str, Method]:
    return with_columns(methods(role), role.more_columns(config), role.more_read(config))
