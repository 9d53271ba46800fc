"""Algorithms: one file each; `rollout` and `learn` are the data flow."""

from hybridflow.algorithms.algorithm import Algorithm, algorithms
from hybridflow.algorithms.step_context import StepContext

register = algorithms.register

__all__ = ["Algorithm", "StepContext", "algorithms", "register"]
