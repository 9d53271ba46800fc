"""Algorithms: one a file; `step` is the data flow."""

from hybridflow.algorithms.algorithm import Algorithm, algorithms

register = algorithms.register

__all__ = ["Algorithm", "algorithms", "register"]
