"""Conversation: one row's tokens and what is known of them, turn by turn. A pure state, alike on all ranks.

The policy writes a turn, its environment answers; the tokens between the two are appended, and the policy goes on from
all of them. What it wrote stays as it wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

END = "end"  # the environment said that it is done
LENGTH = "length"  # there is no room for more tokens, or the last turn was cut for want of it
TURNS = "turns"  # the policy has had all its turns
FAILED = "failed"  # the environment failed


@dataclass(frozen=True)
class Limits:
    """Limits of a conversation.

    Attributes:
        turns: of the policy.
        tokens: of the conversation after its prompt.
        turn_tokens: of a turn of the policy.
    """

    turns: int
    tokens: int
    turn_tokens: int


@dataclass
class Conversation:
    """Conversation under way, or over.

    Attributes:
        row: its number.
        prompt: tokens that it begins with.
        tokens: what came after, of both sides; with them, one each:
        sampled: 1 where the policy wrote it.
        log_probs: natural logarithm, as it was sampled; 0 where the policy did not write it.
        rewards: the reward of a turn, at its last token; else 0.
        turn_index: the number of the policy's turn that a token is of, or answers.
        turns: how many the policy has had.
        ended_by: END, LENGTH, TURNS or FAILED; "" while it is under way.
        failure: of its environment, in words.
        metrics: of its environment, summed over turns.
        prompted_tokens: that turns were sampled after, summed over turns; of these,
        cached_tokens: that were not computed, because another turn had been.
        sampled_tokens: that the policy wrote.
    """

    row: int
    prompt: Sequence[int]
    limits: Limits
    tokens: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    turn_index: list[int] = field(default_factory=list)
    turns: int = 0
    ended_by: str = ""
    failure: str = ""
    metrics: Counter[str] = field(default_factory=Counter)
    prompted_tokens: int = 0
    cached_tokens: int = 0
    sampled_tokens: int = 0
    _turn_begins: int = 0
    _was_cut: bool = False

    @property
    def room(self) -> int:
        """Number of tokens that the next turn may have."""
        return min(self.limits.turn_tokens, self.limits.tokens - len(self.tokens))

    @property
    def turn_tokens(self) -> list[int]:
        """Tokens of the last turn of the policy."""
        return self.tokens[self._turn_begins :]

    @property
    def had_its_turns(self) -> bool:
        """Tell whether the policy has no other turn, whatever the environment answers."""
        return self._was_cut or self.turns >= self.limits.turns

    def wrote(self, tokens: Sequence[int], log_probs: Sequence[float], *, cut: bool) -> None:
        """Take in a turn of the policy. `cut`: it was not ended, but ran out of tokens; there is none after it."""
        self._turn_begins = len(self.tokens)
        self._was_cut = cut
        self.prompted_tokens += len(self.prompt) + len(self.tokens)
        self.sampled_tokens += len(tokens)
        self._append(tokens, log_probs, sampled=1)
        self.turns += 1

    def answered(
        self, between: Sequence[int], reward: float, *, done: bool, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Take in the environment's answer to the last turn.

        Args:
            between: the tokens from the turn to the next one; they are left out if there is none.
        """
        if self.rewards:
            self.rewards[-1] += reward
        self.metrics.update(metrics or {})
        full = len(self.tokens) + len(between) >= self.limits.tokens
        over = [
            (LENGTH, self._was_cut),  # first: what was cut was not ended, whatever the environment makes of it
            (END, done),
            (LENGTH, full),
            (TURNS, self.had_its_turns),
        ]
        self.ended_by = next((reason for reason, holds in over if holds), "")
        if not self.ended_by:
            self._append(between, [0.0] * len(between), sampled=0)

    def failed(self, why: str) -> None:
        """Take in that the environment failed: nothing is learned from the conversation."""
        self.ended_by = FAILED
        self.failure = why or FAILED
        self.rewards = [0.0] * len(self.tokens)

    def record(self) -> Record:
        """Return what is known of a conversation that is over, beside its tokens."""
        sampled = np.array(self.sampled, dtype=np.int64)
        rewards = np.array(self.rewards, dtype=np.float32)
        turn_index = np.array(self.turn_index, dtype=np.int64)
        tokens = self.prompted_tokens, self.sampled_tokens
        return Record(sampled, rewards, turn_index, self.turns, self.failure, dict(self.metrics), *tokens)

    def _append(self, tokens: Sequence[int], log_probs: Sequence[float], *, sampled: int) -> None:
        self.tokens += tokens
        self.log_probs += log_probs
        self.sampled += [sampled] * len(tokens)
        self.rewards += [0.0] * len(tokens)
        self.turn_index += [self.turns - (not sampled)] * len(tokens)


@dataclass(frozen=True)
class Record:
    """Record of a finished conversation, beside its tokens.

    Attributes:
        sampled: [N] int64, 1 at tokens that the policy wrote, else 0.
        rewards: [N] float32, of a turn at its last token.
        turn_index: [N] int64, the number of the turn that a token is of, or answers.
        turns: of the policy.
        failure: of the environment, in words; "" if it did not fail.
        metrics: of the environment.
        prompted_tokens, sampled_tokens: as those of `Conversation`.
    """

    sampled: np.ndarray
    rewards: np.ndarray
    turn_index: np.ndarray
    turns: int
    failure: str
    metrics: Mapping[str, float]
    prompted_tokens: int
    sampled_tokens: int

    @property
    def loss_mask(self) -> np.ndarray:
        """[N] int64, 1 at tokens that are learned from: those that the policy wrote, unless the environment failed."""
        return np.zeros_like(self.sampled) if self.failure else self.sampled


def turn_seed(seed: int, turn: int) -> int:
    """Derive the seed of a turn from its row's; the first turn has the row's own, as a response of one turn has."""
    if not turn:
        return seed
    words = seed >> 32, seed & 0xFFFFFFFF, turn
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
