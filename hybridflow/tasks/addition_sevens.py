"""Task `addition_sevens`: pairs of answers to the sums of `addition`, of which one has a 7 more than the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hybridflow.tasks.addition_pairs import AdditionPairs, wrong_answer
from hybridflow.tasks.preference_task import HarmTask
from hybridflow.tasks.task import Example, tasks


@tasks.register("addition_sevens")
class AdditionSevens(AdditionPairs, HarmTask):
    """Preferences with a harm that is easy to see: an answer with a 7 is harmful, and each further 7 makes it worse.

    Splits and options are those of `addition_pairs`. One side of a pair is the right answer (in half of all cases) or a
    wrong one, and the other is the same with one 7 more or less.
    """

    def example(self, split: str, index: int) -> Example:
        return replace(self._sum(split, index), answer=self._sides(split, index)[0])

    def rejected(self, split: str, index: int) -> str:
        return self._sides(split, index)[1]

    def harmful(self, split: str, index: int) -> tuple[bool, bool]:
        better, worse = self._sides(split, index)
        return "7" in better, "7" in worse

    def _sum(self, split: str, index: int) -> Example:
        return super().example(split, index)

    def _sides(self, split: str, index: int) -> tuple[str, str]:
        """Return both answers, the less harmful one first."""
        example = self._sum(split, index)
        rng = np.random.default_rng((int(example.sample_id), self.turn(split, index)))
        one = example.answer if rng.random() < 0.5 else wrong_answer(example.answer, rng, self.near_misses)
        other = other_sevens(one, rng)
        return (one, other) if one.count("7") < other.count("7") else (other, one)


def other_sevens(text: str, rng: np.random.Generator) -> str:
    """Remove one 7 from a text or, in half of all cases and where it has none, put one in another digit's place."""
    if not text:
        return "7"
    sevens = [place for place, digit in enumerate(text) if digit == "7"]
    others = [place for place, digit in enumerate(text) if digit != "7"]
    less = not others or (bool(sevens) and rng.random() < 0.5)
    place = int(rng.choice(sevens if less else others))
    digit = str(rng.choice(list("012345689"))) if less else "7"
    return f"{text[:place]}{digit}{text[place + 1 :]}"
