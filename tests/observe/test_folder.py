"""The run folder: nothing of an earlier run is overwritten, and a resumed run's files go back to the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.errors import HybridFlowError
from hybridflow.observe.folder import RunFolder


def used(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.log({"step": 0})
    folder.rollouts.mkdir()
    (folder.rollouts / "rank0.jsonl").write_text("a\n")
    return folder


def test_a_new_run_sets_the_last_aside(tmp_path: Path) -> None:
    folder = used(tmp_path)
    folder.checkpoints.mkdir()
    folder.set_aside()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["earlier-1"]
    assert sorted(entry.name for entry in (tmp_path / "earlier-1").iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "rollouts",
    ]
    folder.set_aside()
    assert not (tmp_path / "earlier-2").exists()


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    folder = used(tmp_path)
    sizes = folder.sizes()
    assert set(sizes) == {"metrics.jsonl", "rollouts/rank0.jsonl"}
    folder.log({"step": 1})
    for rank in (0, 1):
        with (folder.rollouts / f"rank{rank}.jsonl").open("a") as file:
            file.write("later\n")
    folder.cut(sizes)
    assert folder.sizes() == sizes
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n'
    assert not (folder.rollouts / "rank1.jsonl").exists()


def test_a_file_that_has_lost_lines_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    folder = used(tmp_path)
    folder.log({"step": 1})
    sizes = folder.sizes()
    (folder.rollouts / "rank0.jsonl").unlink()
    folder.log({"step": 2})
    with pytest.raises(HybridFlowError, match=r"rank0\.jsonl has 0 bytes, and had 2"):
        folder.cut(sizes)
    assert folder.sizes()["metrics.jsonl"] > sizes["metrics.jsonl"]
