"""Rows to try parts on: random ones, and those that are easily forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hybridflow.losses.segments import to_tokens


@dataclass(frozen=True)
class Case:
    """Sample of R rows of T tokens.

    Attributes:
        name: what they are, in words.
        lengths: [R] int64.
        rewards: [R] float32.
        group_id: [R] int64, in any order.
        apart: how far log-probs of two policies lie apart.
    """

    name: str
    lengths: Tensor
    rewards: Tensor
    group_id: Tensor
    apart: float = 0.2
    seed: int = 0

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.lengths.sum())

    def noise(self, size: int, salt: int) -> Tensor:
        """Return [size] float32, the same for the same salt."""
        return torch.randn(size, generator=torch.Generator().manual_seed(1000 * self.seed + salt))

    def log_probs(self) -> tuple[Tensor, Tensor]:
        """Return [T] log-probs twice: of a policy, and of one that is `apart` from it."""
        log_probs = -self.noise(self.tokens, 1).abs()
        return log_probs, log_probs + self.apart * self.noise(self.tokens, 2).sign()

    def advantages(self) -> Tensor:
        """Return [T] advantages, those of a row equal."""
        return to_tokens(self.noise(len(self.lengths), 3), self.lengths)


def cases() -> list[Case]:
    """List all cases, the plainest first; the last has no rows, as a rank has that was given none."""
    plain = [_random(seed) for seed in range(4)]
    first = plain[0]
    rows = len(first.lengths)
    return [
        *plain,
        replace(first, name="responses of one token", lengths=torch.ones(rows, dtype=torch.long)),
        replace(first, name="empty responses among others", lengths=first.lengths * (torch.arange(rows) % 3 != 1)),
        replace(first, name="groups of one", group_id=torch.arange(rows)),
        replace(first, name="equal rewards", rewards=torch.full((rows,), 0.1)),
        _made("one row", [3], [1.0], [0]),
        _made("no rows", [], [], []),
    ]


def policy_cases() -> list[Case]:
    """List the `cases` with rows: two policies that are the same, that differ, that have nothing in common any more."""
    differing = [case for case in cases() if len(case.lengths)]
    same = [replace(case, apart=0.0) for case in differing]
    return [*same, *differing, replace(differing[0], name="log-probs that differ by 100", apart=100.0)]


def _random(seed: int) -> Case:
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (12,), generator=source)
    rewards = torch.rand(12, generator=source)
    group = torch.randint(0, 4, (12,), generator=source)
    return Case("random rows", lengths, rewards, group, seed=seed)


def _made(name: str, lengths: Sequence[int], rewards: Sequence[float], group: Sequence[int]) -> Case:
    whole = torch.tensor(lengths, dtype=torch.long), torch.tensor(group, dtype=torch.long)
    return Case(name, whole[0], torch.tensor(rewards, dtype=torch.float32), whole[1])
