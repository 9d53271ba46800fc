"""Nothing that a model, a file or a name brings moves a terminal's cursor, hides text, or is taken for markup."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hybridflow.cli import main
from hybridflow.errors import HybridFlowError
from hybridflow.observe import terminal
from hybridflow.observe.live_view import Live

HOSTILE = "\x1b]0;owned\x07 \x1b[2J\r\x08\x9b31m \u202edrow\u2066 \u200b\u2028 \ud800 \x00\x7f"
NAMES = ("/m/[proj]/model", "con[/]", "[bold]x", ":smile:", "{task}", "a\nhybridflow: all is well", "a\tb\r")


def is_tame(text: str) -> bool:
    return text.isprintable() or all(char.isprintable() or char == "\n" for char in text)


def test_what_a_terminal_obeys_is_written_as_escapes_and_the_rest_stays() -> None:
    assert terminal.visible("\x1b]0;t\x07 \r \x85 \u202e \ud800") == r"\x1b]0;t\x07 \r \x85 \u202e \ud800"
    assert terminal.visible("line\n\tnext é 数 😀 می\u200cشود [x] \\") == "line\n\tnext é 数 😀 می\u200cشود [x] \\"
    assert terminal.one_line("a\nb\tc") == r"a\nb\tc"


def test_no_control_character_of_any_kind_gets_through() -> None:
    import unicodedata

    shown = {chr(code) for code in range(0x110000) if chr(code) == terminal.visible(chr(code))}
    wrong = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    assert wrong == set()
    assert shown & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c") == set()


@pytest.mark.parametrize("name", [*NAMES, HOSTILE])
def test_live_shows_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    live = Live()
    live.say(f"resuming from {name}")
    live.table(name, {"model": name, name: "x"})
    out = capsys.readouterr().out
    assert is_tame(out) and "all is well" not in out.splitlines()
    assert f"resuming from {terminal.one_line(name)}\n" in out
    assert out.replace("\n", " ").count(terminal.one_line(name)[:8]) >= 3


def test_a_table_in_a_file_cuts_no_path(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    path = "/home/" + "a-long-folder/" * 20 + "model"
    Live().table("mine", {"model": path})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and path in lines[2]


def test_errors_of_ranks_and_of_users_are_tamed_and_keep_their_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise HybridFlowError(f"Traceback\n  in [grader]\nValueError: {HOSTILE}")

    monkeypatch.setattr("hybridflow.cli._dispatch", fail)
    assert main(["train"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["hybridflow train:", "  Traceback", "    in [grader]"] and len(lines) == 4
    assert all(map(is_tame, lines)) and r"\x1b]0;owned\x07" in lines[3]


def test_what_others_print_is_tamed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), terminal.tamed():
        print("usage \x1b[2J")
        print("\x1b[2J", file=sys.stderr)
        sys.exit("x")
    out, err = capsys.readouterr()
    assert out == "usage \\x1b[2J\n" and "\x1b" not in err


def test_our_own_colors_stay(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, color_system="standard")
    terminal.draw(console, terminal.cell("[x]\x1b", "bold red"))
    assert capsys.readouterr().out == "\x1b[1;31m[x]\\x1b\x1b[0m\n"


@pytest.mark.processes
def test_a_terminal_that_is_not_of_utf_8() -> None:
    script = "from hybridflow.observe import terminal; terminal.say('é · \\ud800 数')"
    for encoding, shown in (("ascii", rb"\xe9 \xb7 \ud800 \u6570"), ("latin-1", b"\xe9 \xb7 \\ud800 \\u6570")):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
        assert (done.stdout, done.stderr) == (shown + b"\n", b"")


@pytest.mark.processes
def test_a_reader_that_goes_away_does_not_end_what_prints() -> None:
    script = "from hybridflow.observe import terminal\nfor n in range(9999): terminal.say('x' * 99)\nopen('done', 'w')"
    done = subprocess.run(
        ["bash", "-c", f'cd "$(mktemp -d)"; "{sys.executable}" -c "{script}" | head -1; ls done'],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["x" * 99, "done"] and done.stderr == ""


def test_nothing_prints_past_it() -> None:
    """`print`, consoles and warnings of ours stand in the terminal's own module and in the live view."""
    package = Path(terminal.__file__).parents[1]
    words = (" print(", "console.print(", "print_exc(", "stderr.write(", "stdout.write(")
    found = [
        (file.relative_to(package).as_posix(), line.strip())
        for file in package.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if any(word in line for word in words)
    ]
    own = ("observe/terminal.py", "observe/live_view.py", "resharding/plan/plan.py")  # the last one's is in a docstring
    assert [line for line in found if line[0] not in own] == []
