"""The same numbers from transformers and plain torch, one row at a time: what the engines are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.shared_prefix import row_names
from hybridflow.config.schema import OptimizerConfig

ENTROPY_COEF = 0.3

# Clipping is active (the gradients' norm is above it), and weight decay must spare biases and norms. `eps` is large
# enough that the rounding of a gradient that is nearly 0 does not decide the sign of its first update.
SETTINGS = OptimizerConfig(lr=1e-3, eps=1e-4, beta1=0.9, beta2=0.95, weight_decay=0.1, clip_grad=0.5)


def rows(vocab: int, seed: int = 0) -> Batch:
    """7 ragged rows: among them a response of no token and one, prompts of one token, and a weight for each token."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, vocab, n) for n in (3, 1, 6, 4, 2, 5, 1)]
    responses = Ragged.of([rng.integers(0, vocab, n) for n in (5, 1, 0, 7, 2, 9, 3)])
    weights = rng.normal(1.0, 0.5, len(responses.values)) / 9
    return Batch(
        prompt_ids=Ragged.of(prompts),
        response_ids=responses,
        weights=responses.like(weights.astype(np.float32)),
    )


def shared_rows(vocab: int, seed: int = 1) -> Batch:
    """13 rows that begin alike, in an order of chance, with a weight for each token.

    Samples of two prompts, among them one without a token and two that are equal; turns of a conversation and a branch
    of it, and two rows that go on from one that is not here (`prefix`); and one row that shares nothing.
    """
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[int]:
        return rng.integers(0, vocab, count).tolist()

    one, two, absent = draw(6), draw(4), draw(5)
    equal = draw(2)
    samples = [(one, draw(5)), (one, draw(3)), (one, []), (one, draw(7)), (two, equal), (two, equal)]
    first = draw(3), draw(4)
    whole = [*first[0], *first[1]]
    second = [*whole, *draw(2)], draw(3)
    conversation = [first, second, ([*second[0], *second[1]], draw(2)), ([*whole[:5], *draw(1)], draw(3))]
    branches = [([*absent, *draw(1)], draw(2)), ([*absent[:4], *draw(2)], draw(1))]
    pairs = [*samples, *conversation, *branches, (draw(2), draw(6))]
    name = row_names(Batch(prompt_ids=Ragged.of([whole, [*second[0], *second[1]], absent])))
    prefix = [[0, 0]] * 7 + [[name[0], 7], [name[1], 12], [name[0], 5], [name[2], 5], [name[2], 4], [0, 0]]
    responses = Ragged.of([response for _, response in pairs], np.int64)
    weights = rng.normal(1.0, 0.5, len(responses.values)) / 9
    return Batch(
        prompt_ids=Ragged.of([prompt for prompt, _ in pairs]),
        response_ids=responses,
        weights=responses.like(weights.astype(np.float32)),
        group_id=np.array([0, 0, 0, 0, 1, 1, *range(2, 9)]),
        prefix=np.array(prefix, dtype=np.int64),
    ).select(rng.permutation(len(pairs)))


def load(folder: str | Path) -> torch.nn.Module:
    """The folder's model in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.get_input_embeddings().padding_idx = None  # it would take the gradient from the padding token, as a token
    return model


def cut_vocabulary(folder: Path, vocab: int, out: Path) -> Path:
    """The same model with the first `vocab` tokens only, in `out`."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(vocab)
    model.save_pretrained(out)
    return out


def row_logits(model: torch.nn.Module, batch: Batch) -> list[Tensor]:
    """[L, V] of each row, prompt and response."""
    pairs = zip(batch.ragged("prompt_ids"), batch.ragged("response_ids"), strict=True)
    return [model(torch.from_numpy(np.concatenate(pair))[None]).logits[0] for pair in pairs]


def statistics(logits: list[Tensor], batch: Batch, temperature: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the response tokens of all rows, end to end; `temperature` [R] is each row's."""
    log_probs, entropies = [], []
    heat = [1.0] * len(batch) if temperature is None else temperature.tolist()
    for row, response, divisor in zip(logits, batch.ragged("response_ids"), heat, strict=True):
        log_p = (row[len(row) - len(response) - 1 : -1] / divisor).log_softmax(-1)
        log_probs.append(log_p.gather(-1, torch.from_numpy(response)[:, None])[:, 0])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return torch.cat(log_probs), torch.cat(entropies)


def loss(log_probs: Tensor, entropies: Tensor, weights: Tensor) -> Tensor:
    """A loss in which every token counts differently and the entropy has a gradient too."""
    return -(weights * (log_probs + ENTROPY_COEF * entropies)).sum()


def steps(
    folder: str | Path, batch: Batch, count: int, settings: OptimizerConfig
) -> tuple[dict[str, Tensor], list[float]]:
    """What `count` steps of torch's AdamW with clipping make of the weights, and each step's gradient norm."""
    model = load(folder)
    named = dict(model.named_parameters())
    spared = [p for name, p in named.items() if p.dim() == 1]
    decayed = [p for name, p in named.items() if p.dim() > 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
    )
    weights, norms = torch.from_numpy(batch.ragged("weights").values), []
    for _ in range(count):
        optimizer.zero_grad()
        loss(*statistics(row_logits(model, batch), batch), weights).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)))
        optimizer.step()
    return {name: p.detach() for name, p in named.items()}, norms


def apart(found: dict[str, Tensor], expected: dict[str, Tensor], before: dict[str, Tensor]) -> float:
    """How far two updates are apart: the largest, over the weights, of |difference| / |update|, in the 2-norm."""
    assert set(found) == set(expected) == set(before)
    worst = 0.0
    for name in before:
        update = (expected[name] - before[name]).norm()
        assert update > 0, f"{name} was not updated"
        worst = max(worst, float((found[name] - expected[name]).norm() / update))
    return worst
