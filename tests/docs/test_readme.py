"""README.md: what it registers registers, and does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.docs.conftest import Run

CHECKS = """
from hybridflow import Batch, BatchRef
from hybridflow.algorithms import algorithms as known
from hybridflow.parallel.layout import Layout
from hybridflow.roles import roles

halves, layout = dispatch.protocols.get("halves")(), Layout(data=5)
calls = halves.distribute(layout, dispatch.Call((BatchRef.from_local(Batch(n=np.arange(7))),)))
parts = [call.args[0] for call in calls]
assert [len(part) for part in parts] == [4, 3, 0, 0, 0]
assert halves.collect(layout, parts).get().dense("n").tolist() == list(range(7))
assert known.get("my_grpo") is MyGRPO and all(role in roles for role in MyGRPO.roles)
"""


def test_its_code_runs(tmp_path: Path, run: Run) -> None:
    code = [block.text for block in blocks("README.md") if block.language == "python"]
    assert len(code) == 2
    (tmp_path / "readme.py").write_text("\n".join([*code, CHECKS]), encoding="utf-8")
    run("python", "readme.py")


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_code_block_is_found(page: str) -> None:
    """No block is left out because its fence is written in another way."""
    fences = (ROOT / page).read_text(encoding="utf-8").count("\n```")
    assert len(blocks(page)) * 2 == fences
