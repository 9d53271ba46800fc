"""What the ranks of test_flows import: settings that change, and graders that a random model meets."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import OmegaConf

from hybridflow.config.schema import Algorithm
from hybridflow.dispatch import using
from hybridflow.roles import Role, roles
from hybridflow.tasks.base import graders
from hybridflow.workers import Worker, workers


@roles.register("settings")
@workers.register("settings")
class Settings(Role, Worker):
    """Gives the other roles of the process the settings of another algorithm, so that all share their engines."""

    light = True

    @using("one_to_all")
    def use(self, algorithm: dict[str, Any]) -> None:
        found = cast(Algorithm, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Algorithm), algorithm)))
        for worker in self.context.peers.values():
            worker.context.config.algorithm = found


@graders.register("even")
def even(response: str, answer: str) -> float:
    """Of any two responses one is as likely to be right as the other."""
    return float(sum(map(ord, response)) % 2 == 0)


@graders.register("vowels")
def vowels(response: str, answer: str) -> float:
    """How many there are."""
    return float(sum(letter in "aeiou" for letter in response))
