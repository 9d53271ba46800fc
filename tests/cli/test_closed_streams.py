"""Whoever reads a command's output may go away: the command goes on to its end, and its status is its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

# 400 KB, more than a pipe holds, by each of the ways in which a run writes; then a sign that it has come to its end.
PROGRAM = """
import os, sys
from pathlib import Path
from hybridflow.cli import closed_streams
from rich.console import Console
closed_streams.outlive_readers()
stream = sys.{stream}
for _ in range(1000):
    print("a" * 100, file=stream)
    Console(file=stream, force_terminal=True).print("b" * 100)
    stream.write("c" * 100)
    os.write(stream.fileno(), b"d" * 100) if {raw} else None
print("end", file=stream, flush=True)
Path(sys.argv[1]).write_text("done")
"""


def run_until_read(program: str, mark: Path, *options: str, stderr: bool = False) -> tuple[int, bytes]:
    """Run it, read a few bytes of its output, and go away; its status and what it wrote on the other stream."""
    read = {"stderr" if stderr else "stdout": subprocess.PIPE, "stdout" if stderr else "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *options, "-c", program, str(mark)], **read) as process:
        stream, other = (process.stderr, process.stdout) if stderr else (process.stdout, process.stderr)
        assert stream is not None and other is not None and stream.read(5) == b"aaaaa"
        stream.close()
        rest = other.read()
        return process.wait(timeout=60), rest


@pytest.mark.parametrize("options", [(), ("-u",)])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe(tmp_path: Path, stream: str, options: tuple[str, ...]) -> None:
    program = PROGRAM.format(stream=stream, raw=False)
    assert run_until_read(program, tmp_path / "mark", *options, stderr=stream == "stderr") == (0, b"")
    assert (tmp_path / "mark").read_text() == "done"


def test_a_terminal_that_hangs_up(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM.format(stream="stdout", raw=False), str(tmp_path / "mark")]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True)
    os.close(theirs)
    assert os.read(ours, 5) == b"aaaaa"
    os.close(ours)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0
    assert (tmp_path / "mark").read_text() == "done"


def test_a_descriptor_that_was_closed_before(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -c \'{PROGRAM.format(stream="stdout", raw=False)}\' "$0" >&-'
    command = command.replace("stream.write", "stream.write").replace("force_terminal=True", "force_terminal=False")
    done = subprocess.run(["sh", "-c", command, str(tmp_path / "mark")], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_no_reader_that_went_away() -> None:
    program = "from hybridflow.cli import closed_streams\nclosed_streams.outlive_readers()\nprint('x', flush=True)"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0 and b"No space left" in done.stderr


def test_a_command_whose_reader_takes_one_line() -> None:
    command = f'"{sys.executable}" -u -m hybridflow algorithms | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""
