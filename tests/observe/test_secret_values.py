"""What the environment keeps secret is in no text that is shown or kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hybridflow.observe import logs, terminal
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.secret_values import redacted

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_password"]
)
def test_the_variable_stands_for_its_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert redacted(f"refused: Bearer {SECRET}!") == f"refused: Bearer [{name}]!"


def test_a_secret_is_one_as_json_has_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", 'a"b\\c é d')
    folder = RunFolder(tmp_path)
    folder.event("end", error='refused a"b\\c é d!')
    assert folder.events()[0]["error"] == "refused [MY_PASSWORD]!"


def test_other_variables_and_short_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_FOLDER", SECRET)
    monkeypatch.setenv("HF_TOKEN", "a")
    assert redacted(f"a {SECRET}") == f"a {SECRET}"


def test_everything_that_is_shown_or_kept_is_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    folder = RunFolder(tmp_path)
    folder.event("end", error=f"refused {SECRET}")
    folder.write_record({"error": f"refused {SECRET}"})
    with logs.remembered():
        logs.write_to(tmp_path / "driver.log")
        logging.getLogger("hybridflow.test").warning("refused %s", SECRET)
    terminal.say(f"refused {SECRET}")
    terminal.complain(f"refused {SECRET}")
    shown = capsys.readouterr()
    texts = [file.read_text() for file in sorted(tmp_path.iterdir())]
    assert len(texts) == 3
    for text in (*texts, shown.out, shown.err):
        assert "refused [WANDB_API_KEY]" in text and SECRET not in text
