"""What ranks import to try several algorithms on the same engines. Light: no torch."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import OmegaConf

from hybridflow.config.schema import AlgorithmConfig
from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.tasks import graders
from hybridflow.workers import Worker


@roles.register("contract_settings")
class Settings(Role, Worker):
    """Gives the other roles of the process the settings of another algorithm, so that all share their engines."""

    light = True

    @using("one_to_all")
    def use(self, algorithm: dict[str, Any]) -> None:
        """Settings as `dataclasses.asdict` gives them."""
        settings = cast(
            AlgorithmConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(AlgorithmConfig), algorithm))
        )
        for worker in self.context.peers.values():
            worker.context.config.algorithm = settings


@graders.register("contract_even")
def even(response: str, answer: str) -> float:
    """Grade so that a random model is as often right as wrong."""
    return float(sum(map(ord, response)) % 2 == 0)


@graders.register("contract_count")
def count(response: str, answer: str) -> float:
    """Count the characters of a response: a cost that always varies."""
    return float(len(response))
