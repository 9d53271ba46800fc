"""What ranks printed is kept where a run fails, and only there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from hybridflow.controller.session_logs import kept_if_it_fails
from hybridflow.errors import HybridFlowError, Stopped

SECRET = "0123456789abcdef"


def kept_after(error: BaseException | None, logs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are kept after a block that ended so."""
    logs.mkdir()
    (logs / "worker-1.err").write_text(f"segmentation fault, {SECRET}")
    (logs / "worker-2.out").touch()
    (logs / "raylet.out").write_text("starting")
    node = SimpleNamespace(head=True, get_logs_dir_path=lambda: str(logs))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    with suppress(HybridFlowError, Stopped), kept_if_it_fails(folder):
        if error is not None:
            raise error
    return sorted(file.name for file in folder.glob("*"))


def test_a_run_that_fails_keeps_what_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    folder = tmp_path / "ray"
    assert kept_after(HybridFlowError("x"), tmp_path / "logs", folder, monkeypatch) == ["worker-1.err"]
    assert (folder / "worker-1.err").read_text() == "segmentation fault, [HF_TOKEN]"


@pytest.mark.parametrize("error", [None, Stopped(15)])
def test_others_keep_nothing(error: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_after(error, tmp_path / "logs", tmp_path / "ray", monkeypatch) == []
