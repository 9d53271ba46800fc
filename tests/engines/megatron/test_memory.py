"""Bytes of an engine's tensors, as they are planned: what it keeps, what scoring and a step have besides."""

from __future__ import annotations

import numpy as np
import pytest

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import Device, DType, Recompute
from hybridflow.models import read_shape
from hybridflow.parallel import bf16
from hybridflow.parallel.layout import Layout
from hybridflow.planning.lengths import Lengths
from hybridflow.planning.run_spec import FlowCall, RoleModel, RunSpec, Work
from hybridflow.planning.seated_role import Seated
from hybridflow.planning.slot_memory import stage_bytes
from tests.conftest import GetModel, GetRanks
from tests.engines.megatron.memory_rank_functions import tensor_bytes

pytestmark = pytest.mark.ranks

TOKENS = 64  # of a prompt, and of a response
WITHIN = 0.05

# Layout, number format, and what is computed again; a model with a large vocabulary is at its fullest at its logits.
CASES = {
    "one": (Layout(), DType.float32, Recompute.none, 64),
    "logits": (Layout(), DType.bfloat16, Recompute.none, 20_000),
    "tensor": (Layout(2), DType.float32, Recompute.selective, 64),
    "stages": (Layout(1, 2), DType.bfloat16, Recompute.none, 4_000),
    "data": (Layout(1, 1, 2), DType.bfloat16, Recompute.full, 64),
}


@pytest.mark.parametrize(
    "name", ["logits", "tensor", "stages", *(pytest.param(name, marks=pytest.mark.slow) for name in ("one", "data"))]
)
def test_an_engine_has_the_bytes_that_are_planned(ranks: GetRanks, tiny: GetModel, name: str) -> None:
    layout, dtype, recompute, vocab = CASES[name]
    folder = tiny(architecture="llama", vocab=vocab, tied=name != "one")
    rows, budget = (48, 2048) if layout.pipeline > 1 else (16, 2048)
    rng = np.random.default_rng(0)
    tokens = Ragged(rng.integers(0, 40, rows * TOKENS), np.arange(rows + 1) * TOKENS)
    found = ranks(layout.size).run(
        tensor_bytes, folder, layout, Batch(prompt_ids=tokens, response_ids=tokens), dtype, name == "data",
        budget=budget, recompute=recompute, sequence=name == "tensor",
    )  # fmt: skip
    model = RoleModel(
        read_shape(folder), dtype, trains=True, sharded_optimizer=name == "data", recompute=recompute,
        max_tokens_per_rank=budget, sequence=name == "tensor",
    )  # fmt: skip
    lengths = Lengths((float(TOKENS),))
    flow = tuple(FlowCall("actor", work, work, True, rows * layout.data) for work in (Work.score, Work.train))
    spec = RunSpec(flow, {"actor": model}, rows, 1, lengths, lengths, TOKENS, "sync", {}, 8)
    # Float32 copies of factors are planned for, which only a CPU without bfloat16 instructions makes.
    spare = dtype is DType.bfloat16 and not bf16.needed()
    for rank, at in zip(found, layout.coordinates, strict=True):
        planned = stage_bytes(Seated(model, layout, spec.load, Device.cpu, 0.0, False), at.pp)
        beside = {work: sum(planned.beside[work].values()) for work in (Work.score, Work.train)}
        assert planned.rest == pytest.approx(rank["kept"], rel=WITHIN)
        assert planned.rest + beside[Work.score] == pytest.approx(rank["score"], rel=2 * WITHIN)
        assert planned.rest + beside[Work.train] == pytest.approx(rank["train"], rel=2 * WITHIN if spare else WITHIN)
