"""How far log-probs of generation and training may lie apart: by number format, of the whole distribution."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.config.role_settings import DType
from hybridflow.config.schema import Config
from hybridflow.workers.log_prob_bound import refuse_disagreement

VOCAB = 70


def refuse(config: Config, *differences: float, others: tuple[float, float] = (0.0, 0.0)) -> None:
    """Ask of 32 tokens of this rank, and of those of another."""
    tokens = np.repeat(differences, 32 // max(len(differences), 1))

    def global_sums(*values: float) -> list[float]:
        return [mine + theirs for mine, theirs in zip(values, others, strict=True)]

    refuse_disagreement(config, VOCAB, tokens, global_sums)


def config(dtype: DType = DType.float32, **changes: float) -> Config:
    made = Config()
    made.actor.model.dtype = dtype
    for name, value in changes.items():
        setattr(made.rollout, name, value)
    return made


def test_each_number_format_has_its_bound() -> None:
    refuse(config(), 9e-4)
    refuse(config(DType.bfloat16), 0.19)
    with pytest.raises(
        RuntimeError, match=r"lie 0.0011 apart in the mean of 32 tokens .* float32 at most 0.001 is exp"
    ):
        refuse(config(), 1e-4, 2.1e-3)
    with pytest.raises(RuntimeError, match=r"`rollout.max_log_prob_diff.bfloat16`"):
        refuse(config(DType.bfloat16), 0.21)


def test_the_mean_is_over_all_ranks() -> None:
    refuse(config(), 0.0015, others=(0.0, 32.0))
    with pytest.raises(RuntimeError, match="of 64 tokens"):
        refuse(config(), 0.0, others=(0.1, 32.0))


@pytest.mark.parametrize("changes", [{"top_p": 0.9}, {"top_k": 5}, {"vocabulary": VOCAB - 1}])
def test_a_part_of_the_distribution_is_not_compared(changes: dict[str, float]) -> None:
    refuse(config(**changes), 1.0)


def test_few_tokens_and_a_bound_of_0_refuse_nothing() -> None:
    refuse_disagreement(config(), VOCAB, np.full(3, 1.0), lambda *values: list(values))
    refuse_disagreement(config(), VOCAB, np.zeros(0), lambda *values: list(values))
    none = config(vocabulary=VOCAB)
    with pytest.raises(RuntimeError):
        refuse(none, 1.0)
    none.rollout.max_log_prob_diff.float32 = 0.0
    refuse(none, 1.0)
