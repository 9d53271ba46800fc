"""`hybridflow watch`: a run by its folder alone, one that goes on until it ends, and one error for what is none."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridflow.cli import main, watch
from hybridflow.observe import live_view
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked

METRICS = {"reward/mean": 0.25, "timing_s/step": 2.0, "timing_s/update_actor": 1.0}


def build_run(path: Path, status: str, steps: int = 2) -> RunFolder:
    folder = RunFolder(path)
    folder.write_config("trainer: {steps: 4}\nrun: {name: sums}\n")
    folder.write_record({"name": "sums", "status": status})
    folder.event("start", step=0)
    for step in range(steps):
        folder.log({"step": step, **METRICS})
    return folder


@pytest.mark.parametrize(("status", "code"), [("ended", 0), ("failed", 1), ("interrupted", 1), ("killed", 1)])
def test_a_run_that_has_ended_is_shown_once(
    status: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    folder = build_run(tmp_path / "run", "running" if status == "killed" else status)
    before = sorted(folder.path.rglob("*"))
    assert main(["watch", str(folder.path)]) == code
    out, err = capsys.readouterr()
    assert f"sums · {status} ─" in out and "2/4 steps" in out and "training" in out and err == ""
    assert out.count("2/4 steps") == 1 and max(map(len, out.splitlines())) <= 80
    assert sorted(folder.path.rglob("*")) == before


def test_a_run_that_has_learned_nothing_is_not_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_run(tmp_path / "run", "ended")
    folder.write_record({"name": "sums", "status": "ended", "error": "the loss of the actor had no gradient"})
    assert main(["watch", str(folder.path)]) == 1
    assert "had no gradient" in capsys.readouterr().out


class Watched:
    """A thread that watches, what it has said so far, and its last picture."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.01)
        monkeypatch.setattr(live_view, "LINE_EVERY_S", 0.0)
        caplog.set_level(logging.INFO, "hybridflow.said")
        self._said = caplog
        self._thread = threading.Thread(target=watch.watch, args=(path,), daemon=True)
        self._thread.start()

    def wait_for(self, line: str) -> None:
        """Wait until it has said something that begins so."""
        while not any(said.startswith(line) for said in self._said.messages):
            assert self._thread.is_alive(), self._said.messages
            time.sleep(0.01)

    def end(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_run_that_goes_on_is_followed_until_it_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = build_run(tmp_path / "run", "running", steps=1)
    with locked(folder.path):
        watched = Watched(folder.path, monkeypatch, caplog)
        watched.wait_for("sums is running, after 1 step")
        for step in (1, 2, 3):
            folder.log({"step": step, **METRICS})
            watched.wait_for(f"step {step} ({step + 1}/4 done) · reward 0.250 · {6 - 2 * step} s left")
        folder.event("checkpoint", step=4, seconds=1.0)
        watched.wait_for("saved step 4 in 1.0 s")
        folder.write_record({"name": "sums", "status": "ended"})
    watched.end()
    out = capsys.readouterr().out
    assert out.count("4/4 steps") == 1 and "sums · ended" in out


def test_a_run_whose_process_is_gone_is_followed_no_longer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = build_run(tmp_path / "run", "running", steps=1)
    with locked(folder.path):
        watched = Watched(folder.path, monkeypatch, caplog)
        watched.wait_for("sums is running")
    watched.end()
    assert "sums · killed" in capsys.readouterr().out


def test_a_run_that_starts_has_no_files_yet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "sums"
    with locked(path):
        watched = Watched(path, monkeypatch, caplog)
        watched.wait_for("sums is starting, after 0 steps")
        build_run(path, "ended")
        watched.wait_for("began at step 0")
    watched.end()
    assert "sums · ended" in capsys.readouterr().out


def test_a_folder_that_is_removed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_run(tmp_path / "run", "running", steps=1)
    moved = tmp_path / "moved"
    clock = SimpleNamespace(time=time.time, sleep=lambda _: folder.path.exists() and folder.path.rename(moved))
    monkeypatch.setattr(watch, "time", clock)
    with locked(folder.path):
        assert main(["watch", str(folder.path)]) == 1
        moved.rename(folder.path)
    out, err = capsys.readouterr()
    assert "sums is running" in out and err.endswith("somebody moved or removed this run folder\n")


@pytest.mark.processes
def test_it_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", "running", steps=1)
    command = [sys.executable, "-m", "hybridflow", "watch", str(folder.path)]
    with locked(folder.path), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and b"sums is running" in process.stdout.readline()
            process.stdout.close()
            folder.event("checkpoint", step=1, seconds=1.0)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_alarms_of_a_run_that_told_none_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build_run(tmp_path / "run", "ended")
    folder.log({"step": 2, **METRICS, "actor/pg_loss": None})
    assert main(["watch", str(folder.path)]) == 0
    assert "non finite, step 2: " in capsys.readouterr().out


def test_a_folder_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def begin(_: float) -> None:
        if (tmp_path / "runs").exists():  # at the second look: the first finds a folder that has nothing in it
            build_run(tmp_path / "runs/sums", "ended", steps=4)
        else:
            (tmp_path / "runs/sums").mkdir(parents=True)

    monkeypatch.setattr(watch, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=begin))
    assert main(["watch", "runs/sums"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first[15:] == "runs/sums is not there yet: waiting 60 s for a run that begins"
    assert any("4/4 steps" in line for line in rest)


def test_a_run_of_nearly_that_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch, "WAIT_S", 0.0)
    build_run(Path("runs/addition"), "ended")
    assert main(["watch", "runs/adition"]) == 2
    out, err = capsys.readouterr()
    assert out.endswith("; there is runs/addition\n")
    assert err == "hybridflow watch: runs/adition: there is no such folder; give a run folder\n"


@pytest.mark.parametrize("place", ["nowhere", "rows.jsonl", "empty", "evaluation"])
def test_what_is_no_run_is_one_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch, "WAIT_S", 0.0)
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "evaluation").write_config("")
    (tmp_path / "evaluation/evaluation.json").write_text("{}")
    assert main(["watch", place]) == 2
    out, err = capsys.readouterr()
    assert ("waiting" in out) == (place == "nowhere")
    assert len(err.splitlines()) == 1 and err.startswith(f"hybridflow watch: {place}")


HEAVY = """
import sys
from hybridflow.cli import main
main(["watch", sys.argv[1]])
print(sorted({"megatron", "ray", "torch", "transformers", "vllm"} & set(sys.modules)))
"""


@pytest.mark.processes
def test_it_starts_at_once(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", "ended")
    program = [sys.executable, "-c", HEAVY, str(folder.path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
