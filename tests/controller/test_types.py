"""What a type checker knows of a role's methods, on a rank and on a group."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mypy import api

PROGRAM = """
from hybridflow.batch import Batch, BatchRef
from hybridflow.controller import ResourcePool
from hybridflow.parallel.layout import Layout
from hybridflow.roles import ActorRole

def flow(pool: ResourcePool, prompts: BatchRef, rows: Batch) -> None:
    actor: ActorRole[BatchRef] = pool.start_role("actor", Layout())
    reveal_type(actor.generate_sequences(prompts, step=1))
    reveal_type(actor.update_actor(prompts))
    reveal_type(next(actor.stream_sequences(prompts, step=1))[1])
    actor.generate_sequences(prompts, steps=1)
    actor.update_actor(rows)

class Mine(ActorRole[Batch]):
    def compute_log_prob(self, rollout: Batch) -> Batch:
        return rollout

    def update_actor(self, rollout: int) -> None: ...

def on_a_rank(worker: Mine, rows: Batch) -> None:
    reveal_type(worker.compute_log_prob(rows))
"""


@pytest.fixture(autouse=True)
def recursion_limit() -> Iterator[None]:
    """Mypy raises it for the process, and leaves it; what is nested without end then costs others half a minute."""
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


def test_both_sides_of_a_method_are_typed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    out, err, _ = api.run([str(program), "--cache-dir", ".mypy_cache"])
    assert not err
    said = [re.sub(r".*?(program\.py:\d+: \w+: .*?)(  \[.*)?$", r"\1", line) for line in out.splitlines()]
    said = [line.removeprefix("program.py:") for line in said if line.startswith("program.py:")]
    assert [line for line in said if "Liskov" not in line and "See https" not in line] == [
        '9: note: Revealed type is "hybridflow.batch.batch_ref.BatchRef"',
        '10: note: Revealed type is "hybridflow.dispatch.interface.Result"',
        '11: note: Revealed type is "hybridflow.batch.batch_ref.BatchRef"',
        '12: error: Unexpected keyword argument "steps"; did you mean "step"?',
        '13: error: Argument 1 has incompatible type "Batch"; expected "BatchRef"',
        '19: error: Argument 1 of "update_actor" is incompatible with supertype '
        '"hybridflow.roles.builtin_roles.ActorRole"; supertype defines the argument type as "Batch"',
        '22: note: Revealed type is "hybridflow.batch.batch.Batch"',
    ]
