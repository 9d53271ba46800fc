"""docs/data-plane.md: its programs print what it says, and its picture shows what a protocol does."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from hybridflow import Batch, BatchRef, dispatch
from hybridflow.parallel.layout import Layout
from tests.docs.blocks import ROOT, blocks, write_files
from tests.docs.conftest import Run

pytestmark = pytest.mark.processes

PAGE = "docs/data-plane.md"


@pytest.mark.ranks
def test_the_page_runs(tmp_path: Path, run: Run) -> None:
    programs = [name for name in write_files(PAGE, tmp_path) if name != "grading.py"]  # a module of one of them
    shown = [block.text for block in blocks(PAGE) if block.title == "output"]
    assert [run("python", name).stdout for name in programs] == shown and len(shown) == 4


def test_the_picture_shows_what_a_protocol_does() -> None:
    """Six rows of chunks A and B over three ranks."""
    chunks = {name: BatchRef.from_local(Batch(y=np.zeros(3))) for name in "AB"}
    names = {id(ref.sources[0].chunks[0]): name for name, ref in chunks.items()}
    rows = dispatch.concat(list(chunks.values()))
    calls = dispatch.protocols.get("3d_proto")().distribute(Layout(data=3), dispatch.Call((rows,)))
    shown = " ".join("".join(ElementTree.parse(ROOT / "docs/images/data-plane.svg").getroot().itertext()).split())
    for rank, call in enumerate(filter(None, calls)):
        (source,) = call.args[0].sources
        runs = [f"{names[id(chunk)]}[{a}:{b}]" for chunk, a, b in source.runs]
        assert f"rank {rank} {' '.join(runs)}" in shown
