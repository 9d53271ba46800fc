"""`hybridflow report`: what it takes, what it refuses, and that it is quick to ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hybridflow.cli import main
from tests.observe.report.synthetic_run import build_run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    build_run(tmp_path / "runs/mine", steps=4, rows_every=2)
    for job in ("0", "2", "10"):
        build_run(tmp_path / "runs/sweep" / job, steps=2, rows_every=1)
    build_run(tmp_path / "runs/sweep/earlier-1", steps=2)
    return tmp_path


def labels(html: Path) -> list[str]:
    return [part.partition('"')[0] for part in html.read_text(encoding="utf-8").split('"label":"')[1:]]


def test_a_run_and_a_sweep_in_the_order_of_its_jobs(runs: Path, capsys: Captured) -> None:
    assert main(["report", "runs/sweep/", "runs/mine"]) == 0
    assert labels(Path("report.html")) == ["sweep/0", "sweep/2", "sweep/10", "mine"]
    assert capsys.readouterr().out.startswith("report.html: 4 runs, 0.")
    assert main(["report", "runs/mine", "--out", "report.html", "--force"]) == 0
    assert labels(Path("report.html")) == ["mine"]


def test_a_run_that_is_found_twice_is_shown_once(runs: Path) -> None:
    """As by a pattern of a shell, or by a link to the newest run beside it."""
    Path("runs/sweep/newest").symlink_to("10")
    assert main(["report", "runs/sweep", "runs/mine", "./runs/mine", "runs/sweep/newest"]) == 0
    assert sorted(labels(Path("report.html"))) == ["mine", "sweep/0", "sweep/10", "sweep/2"]


def test_nobody_else_reads_it_unless_somebody_has_said_so(runs: Path) -> None:
    """As the run folder, which is its maker's alone; a file that is replaced keeps its mode."""
    assert main(["report", "runs/mine"]) == 0
    assert Path("report.html").stat().st_mode & 0o777 == 0o600
    Path("report.html").chmod(0o644)
    assert main(["report", "runs/mine", "--force"]) == 0
    assert Path("report.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such folder; give a run folder"),
        (["."], ". is no run folder"),
        (
            ["runs/mine", "--out", "there.html"],
            "there.html is there already; give another name, or --force to replace it",
        ),
        (["runs/mine", "--out", "report.txt"], "a report's name ends in .html"),
        (["runs/mine", "--out", "no/report.html"], "does not exist"),
    ],
)
def test_what_is_refused(arguments: list[str], said: str, runs: Path, capsys: Captured) -> None:
    Path("there.html").write_text("mine")
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert Path("there.html").read_text() == "mine" and not Path("report.html").exists()


@pytest.mark.processes
def test_it_imports_nothing_heavy(runs: Path) -> None:
    code = "import sys; from hybridflow.cli import main; main(['report', 'runs/mine']); "
    code += "print([name for name in ('torch', 'ray', 'vllm', 'megatron', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
