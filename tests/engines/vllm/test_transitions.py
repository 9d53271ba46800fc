"""From each layout of training to each of generation: what vLLM says after a step is what transformers says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridflow.batch import Batch, Ragged
from hybridflow.engines.megatron.sharding import padded_vocabulary
from hybridflow.models import Along, ModelShape, read_shape
from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks, starting_ranks
from tests.engines import reference
from tests.engines.vllm import transitions
from tests.engines.vllm.transitions import Transition
from tests.resharding.plan.simulate import stage_weights

pytestmark = [pytest.mark.ranks, pytest.mark.usefixtures("one_vllm_a_process")]

VOCAB = 70  # is padded


def case(t: int, p: int, d: int, t_g: int, p_g: int, tied: bool, method: str = "hybrid") -> object:
    """A case of `test_transitions`. Four ranks on two cores take a minute to start."""
    layout = Layout(t, p, d, (t_g, p_g), nested=method != "hybrid_v")
    kind = "tied" if tied else "untied"
    marks = [pytest.mark.slow] if layout.size > 2 else []
    return pytest.param(layout, tied, method, id=f"{t}{p}{d}-{t_g}{p_g}-{method}-{kind}", marks=marks)


CASES = [
    case(1, 2, 1, 1, 2, tied=True),
    case(2, 2, 1, 1, 2, tied=True),
    case(2, 1, 1, 1, 1, tied=True),
    case(2, 1, 1, 2, 1, tied=True),
    case(1, 2, 1, 1, 1, tied=True),
    case(1, 2, 1, 1, 2, tied=False),
    case(2, 1, 1, 1, 1, tied=False, method="full_gather"),
    case(2, 1, 2, 1, 1, tied=False),
    case(2, 2, 1, 1, 1, tied=True),
    case(2, 2, 1, 1, 1, tied=False),
    case(2, 2, 1, 2, 1, tied=True),
    case(2, 2, 1, 2, 1, tied=False, method="hybrid_v"),
    case(2, 2, 1, 1, 2, tied=False, method="hybrid_v"),
    case(2, 2, 1, 2, 2, tied=True),
    case(1, 2, 2, 1, 1, tied=False),
    case(1, 4, 1, 1, 2, tied=True),
    case(1, 4, 1, 1, 2, tied=False),
    case(4, 1, 1, 2, 1, tied=False),
]


@pytest.fixture(scope="module")
def ranks() -> Iterator[GetRanks]:
    """Processes of their own: in them vLLM's groups are made anew for each layout."""
    with starting_ranks() as get:
        yield get


def prompts(replicas: int) -> list[Ragged]:
    rng = np.random.default_rng(0)
    return [Ragged.of([rng.integers(1, VOCAB, n) for n in (1, 4, 9)]) for _ in range(replicas)]


@pytest.mark.parametrize(("layout", "tied", "method"), CASES)
def test_transitions(layout: Layout, tied: bool, method: str, ranks: GetRanks, tiny: GetModel, tmp_path: Path) -> None:
    assert_transition(layout, method, tiny(vocab=VOCAB, tied=tied, kv_heads=4), ranks, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("vocab", "generation"), [(70, 1), (150, 3)])
def test_three_tensor_ranks(vocab: int, generation: int, ranks: GetRanks, tiny: GetModel, tmp_path: Path) -> None:
    """Both vocabularies are padded to 192 rows for Megatron; for vLLM on one rank the smaller is to 128."""
    folder = tiny(vocab=vocab, layers=2, hidden=192, heads=6, kv_heads=6)
    assert_transition(Layout(3, generation=(generation, 1)), "hybrid", folder, ranks, tmp_path)


def assert_transition(layout: Layout, method: str, folder: Path, ranks: GetRanks, tmp_path: Path) -> None:
    """Tokens, bytes and memory are as they should be before and after a step."""
    parts, rows = prompts(layout.replicas), reference.rows(VOCAB)
    found: list[Transition] = ranks(layout.size).run(
        transitions.transition, folder, layout, method, parts, rows, 150_000, tmp_path / "out", timeout_s=280
    )
    for rank, (one, at) in enumerate(zip(found, layout.generation_coordinates, strict=True)):
        assert_said(one.after, parts[at.dp], tmp_path / "out")
        assert one.before.tokens.values.tolist() != one.after.tokens.values.tolist(), "the step changed nothing"
        assert one.received == one.planned, rank
        assert one.peak <= one.bound, rank
        assert one.stored == tuple(stored(read_shape(folder), *sizes) for sizes in stages(layout, rank)), rank
        assert len(one.shared) == (sum(size > 1 for size in layout.generation_sizes) if one.shares else 0)
        assert all(name.startswith("hybridflow-") and not there for name, there in one.shared.items())


def stages(layout: Layout, rank: int) -> list[tuple[int, int, int]]:
    """Of a rank in training and in generation: tensor size, pipeline size, stage."""
    here, there = layout.coordinates[rank], layout.generation_coordinates[rank]
    t_g, p_g = layout.generation_sizes
    return [(layout.tensor, layout.pipeline, here.pp), (t_g, p_g, there.pp)]


def stored(shape: ModelShape, tensor: int, pipeline: int, stage: int) -> int:
    """Bytes of a rank's float32 weights. A weight's rows are cut or not, and a vocabulary's are padded before."""
    weights = stage_weights(shape, pipeline, stage)
    padded = padded_vocabulary(shape, tensor)
    whole = [math.prod((padded if w.along is Along.vocabulary else w.shape[0], *w.shape[1:])) for w in weights]
    return 4 * sum(size if w.axis is None else size // tensor for w, size in zip(weights, whole, strict=True))


def assert_said(found: transitions.Generated, asked: Ragged, folder: Path) -> None:
    """Each token is transformers' likeliest, with its log-prob."""
    model = reference.load(folder)
    rows = Batch(prompt_ids=asked, response_ids=found.tokens)
    with torch.no_grad():
        logits = reference.row_logits(model, rows)
        log_probs, _ = reference.statistics(logits, rows)
    likeliest = [row[len(p) - 1 : -1].argmax(-1).tolist() for row, p in zip(logits, asked, strict=True)]
    assert [response.tolist() for response in found.tokens] == likeliest
    np.testing.assert_allclose(found.log_probs.values, log_probs.numpy(), atol=1e-4)
