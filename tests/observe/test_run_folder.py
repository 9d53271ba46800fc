"""The run folder: nothing of an earlier run is overwritten, and a resumed run's files go back to the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.errors import HybridFlowError
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked


def build_used_folder(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.write_config("run: {}")
    folder.log({"step": 0})
    folder.rollouts.mkdir()
    (folder.rollouts / "rank0.jsonl").write_text("a\n")
    return folder


def test_a_run_folder_is_its_owners_alone(tmp_path: Path) -> None:
    RunFolder(tmp_path / "runs/mine").write_config("a: 1")
    with locked(tmp_path / "runs/other"):
        for name in ("mine", "other"):
            assert (tmp_path / "runs" / name).stat().st_mode & 0o777 == 0o700


def test_a_new_run_sets_the_last_aside(tmp_path: Path) -> None:
    folder = build_used_folder(tmp_path)
    folder.checkpoints.mkdir()
    assert folder.archive_previous() == tmp_path / "earlier-1"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["earlier-1"]
    assert sorted(entry.name for entry in (tmp_path / "earlier-1").iterdir()) == [
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "rollouts",
    ]
    assert folder.archive_previous() is None
    assert not (tmp_path / "earlier-2").exists()


def test_a_journal_stays_for_a_run_that_takes_it_up(tmp_path: Path) -> None:
    folder = build_used_folder(tmp_path)
    folder.journal.mkdir()
    folder.archive_previous(keep_journal=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["earlier-1", "journal"]
    assert folder.archive_previous() == tmp_path / "earlier-2" and not folder.journal.exists()


def test_the_number_is_one_more_than_the_largest(tmp_path: Path) -> None:
    for name in ("earlier-2", "earlier-9", "earlier-x", "earlier-007"):
        (tmp_path / name).mkdir()
    assert build_used_folder(tmp_path).archive_previous() == tmp_path / "earlier-10"


def test_a_run_that_neither_ended_nor_saved(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path).unsaved()
    folder = build_used_folder(tmp_path)
    assert folder.unsaved()
    (folder.checkpoints / ".tmp-step-000003").mkdir(parents=True)
    assert folder.unsaved()
    (folder.checkpoints / "step-000003").mkdir()
    assert not folder.unsaved()
    (folder.checkpoints / "step-000003").rmdir()
    folder.model.mkdir()
    assert not folder.unsaved()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(HybridFlowError, match=rf"^No space left on device: {tmp_path}/metrics\.jsonl$"):
        folder.log({"step": 0})


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    folder = build_used_folder(tmp_path)
    sizes = folder.sizes()
    assert set(sizes) == {"metrics.jsonl", "rollouts/rank0.jsonl"}
    folder.log({"step": 1})
    for rank in (0, 1):
        with (folder.rollouts / f"rank{rank}.jsonl").open("a") as file:
            file.write("later\n")
    folder.truncate_to(sizes)
    assert folder.sizes() == sizes
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n'
    assert not (folder.rollouts / "rank1.jsonl").exists()


def test_a_file_that_has_lost_lines_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    folder = build_used_folder(tmp_path)
    folder.log({"step": 1})
    sizes = folder.sizes()
    (folder.rollouts / "rank0.jsonl").unlink()
    folder.log({"step": 2})
    with pytest.raises(HybridFlowError, match=r"rank0\.jsonl has 0 bytes, and had 2"):
        folder.truncate_to(sizes)
    assert folder.sizes()["metrics.jsonl"] > sizes["metrics.jsonl"]


def test_lines_of_metrics_without_one_that_a_killed_run_left_half(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.metric_lines() == []
    folder.log({"step": 0, "loss": 1.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": 1, "lo')
    assert folder.metric_lines() == [{"step": 0, "loss": 1.5}]
