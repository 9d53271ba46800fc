"""Environments: rollouts as conversations between the policy and something that answers it."""

from hybridflow.environments.environment import Action, Environment, Observation, Question, environments

__all__ = ["Action", "Environment", "Observation", "Question", "environments"]
