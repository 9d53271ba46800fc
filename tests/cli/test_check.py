"""`hybridflow check`: its exit statuses, and that ranks are not started for what is already known to be wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridflow.cli import main
from hybridflow.conformance import flow_checks
from tests.conformance.conftest import forgetting

DETACHED = """
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.losses.token_loss import TokenLoss

@policy_losses.register("detached")
def detached(inputs, *, scale=1.0):
    return TokenLoss(-scale * (inputs.log_probs * inputs.advantages).detach(), {})
"""


@pytest.fixture
def module(workplace: Path) -> Iterator[Path]:
    """The file of the module `mine`, which registries forget afterwards."""
    with forgetting("mine"):
        yield workplace / "mine.py"


def test_what_is_wrong_is_told_and_no_rank_is_started(
    module: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(flow_checks, "results")
    module.write_text(DETACHED)
    assert main(["check", "mine"]) == 1
    out, err = capsys.readouterr()
    found, wrong, end = out.splitlines()
    assert found == "found: policy loss 'detached'" and end == "expectations that are not met: 1" and err == ""
    assert wrong.startswith("  wrong  policy loss 'detached': on random rows: gradient does not flow: ")


ROLE = """
from dataclasses import dataclass
from omegaconf import MISSING
from hybridflow import algorithms, dispatch
from hybridflow.roles import Role, roles
from hybridflow.workers import Worker

@dataclass(frozen=True)
class JudgeSettings:
    path: str = MISSING

@roles.register("judge", settings=JudgeSettings)
class Judge(Role, Worker):
    @dispatch.using("dp_prot", gives=["score"])
    def judge(self, rows): ...
"""
FLOW = """
@algorithms.register("judged")
class Judged(algorithms.Algorithm):
    roles = ("actor", "judge")
    components = ()
    def step(self, prompts):
        return prompts
"""


def test_a_protocol_that_nobody_registers_is_told_before_ranks_start(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module.write_text(ROLE)
    assert main(["check", "mine", "judge.path=here"]) == 1
    wrong = capsys.readouterr().out.splitlines()[1]
    assert wrong.startswith("  wrong  role 'judge': Judge.judge: no dispatch protocol is named 'dp_prot'; did you mean")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["mine"], "judge.path: must be given (algorithm=grpo); add judge.path=VALUE after the modules"),
        (["mine", "judge.pat=here"], "judge.pat: no such key; did you mean judge.path?"),
        (["mine", "judge.path"], "cannot import 'judge.path'"),
    ],
)
def test_settings_of_a_role_are_given_after_the_modules(
    module: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    module.write_text(ROLE.replace("dp_prot", "dp_proto") + FLOW)
    assert main(["check", *given]) == 2
    assert told in capsys.readouterr().err


def test_settings_alone_are_no_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check", "judge.path=here"])
    assert "no MODULE is named, only settings" in capsys.readouterr().err


def test_a_module_that_registers_nothing_is_a_mistake(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module.write_text("x = 1\n")
    assert main(["check", "mine"]) == 2
    assert "mine: registers nothing new" in capsys.readouterr().err


def test_a_module_that_cannot_be_imported_is_a_mistake(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module.write_text("import nowhere\n")
    assert main(["check", "mine"]) == 2
    assert "plugins: cannot import 'mine': No module named 'nowhere' (" in capsys.readouterr().err


def test_no_module_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check"])
    assert "MODULE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("import os\nos._exit(0)\n", 2, "cannot import 'mine': SystemExit: os._exit(0) would have ended the process"),
        (
            "import os\nfrom hybridflow.tasks import graders\n\n"
            "@graders.register('leaves')\ndef leaves(response, answer):\n    os._exit(0)\n",
            1,
            "wrong  grader 'leaves': SystemExit: os._exit(0) would have ended the process",
        ),
    ],
)
def test_a_module_cannot_end_the_check_in_its_own_name(
    module: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, told: str
) -> None:
    own = os._exit
    module.write_text(text)
    assert main(["check", "mine"]) == status
    out, err = capsys.readouterr()
    assert told in out + err and os._exit is own


def test_a_part_that_ends_the_process_keeps_no_promise(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module.write_text(
        "import sys\nfrom hybridflow.tasks import graders\n\n"
        "@graders.register('leaves')\ndef leaves(response, answer):\n    sys.exit(0)\n"
    )
    assert main(["check", "mine"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("  wrong  grader 'leaves': ") and "SystemExit: 0" in out[1] and "mine.py:6" in out[1]


def test_what_only_a_run_tries_is_told(
    module: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_checks, "results", lambda *given: iter(()))
    module.write_text(
        "from hybridflow.algorithms.schedule import Schedule, schedules\n\n"
        "@schedules.register('backwards')\nclass Backwards(Schedule):\n    def take_step(self, context): ...\n"
    )
    assert main(["check", "mine"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == ["not tried, as only a run does: schedule 'backwards'", "all expectations are met"]
