"""What modules register, and what they only import."""

from __future__ import annotations

from hybridflow.conformance.discovery import names
from tests.conformance.conftest import FindIn

SOURCE = """
from functools import partial
from hybridflow.losses import baselines  # ours, which this import may register
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.tasks import graders

@graders.register("mine")
def mine(response, answer):
    return 1.0

policy_losses.register("half")(partial(policy_losses.get("pg")))
"""


def test_only_what_is_new_and_not_ours(find_in: FindIn) -> None:
    assert names(find_in(SOURCE)) == ["grader 'mine'", "policy loss 'half'"]


def test_tools_and_samplers_are_found(find_in: FindIn) -> None:
    source = """
from hybridflow.environments.tools import Tool, tools
from hybridflow.scheduling.samplers import Fifo, samplers

@tools.register("reverse")
class Reverse(Tool):
    def __call__(self, text):
        return text[::-1]

@samplers.register("newest")
class Newest(Fifo):
    pass
"""
    assert names(find_in(source)) == ["tool 'reverse'", "sampler 'newest'"]


def test_nothing(find_in: FindIn) -> None:
    assert names(find_in("import hybridflow.algorithms.ppo")) == []
