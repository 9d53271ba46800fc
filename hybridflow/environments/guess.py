"""Environment `guess`: a number is to be found; every guess is told where the number lies."""

from __future__ import annotations

from hybridflow.environments.environment import Action, Environment, Observation, Question, environments
from hybridflow.tasks.written_numbers import last_number


@environments.register("guess")
class Guess(Environment):
    """The row's answer is the number. A guess is the last number in a turn; the right one is rewarded with 1.

    Args:
        higher, lower: what is said where the number is higher, or lower, than the guess.
        no_number: what is said to a turn without a number.
    """

    def __init__(self, higher: str = "higher", lower: str = "lower", no_number: str = "a number, please") -> None:
        self._replies = {-1: higher, 1: lower}
        self._no_number = no_number
        self._number = 0

    async def reset(self, question: Question) -> None:
        self._number = int(question.answer)

    async def step(self, action: Action) -> Observation:
        guess = last_number(action.text)
        if guess is None:
            return Observation(self._no_number, metrics={"no_number": 1.0})
        if guess == self._number:
            return Observation(reward=1.0, done=True, metrics={"found": 1.0})
        return Observation(self._replies[1 if guess > self._number else -1])
