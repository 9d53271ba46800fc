"""Sandbox for Python programs that nobody trusts, made by bubblewrap.

A program has: this Python and its standard library, the system's /usr to read, an empty /home and /tmp of its own in
memory, no network, no environment, no other process to see, and limits. It ends, with all that it has started, when
the time is up or when the process that started it ends.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hybridflow import interrupt
from hybridflow.errors import HybridFlowError
from hybridflow.tasks import sandbox_launcher

MEGABYTE = 1 << 20
PROBE_S = 60.0
SYSTEM = ("/lib", "/lib32", "/lib64", "/bin", "/sbin")  # links into /usr on most systems, folders on some
HINT = "bubblewrap makes the sandbox in which responses run (Debian, Ubuntu, Fedora: the package bubblewrap)"


@dataclass(frozen=True)
class Limits:
    """Limits of a program: megabytes of address space a process, processes, megabytes a file and of all its files."""

    memory_mb: int = 1024
    processes: int = 16
    file_mb: int = 16


@dataclass(frozen=True)
class Ended:
    """End of a program: its exit status, None if its time was up; and what it wrote."""

    status: int | None
    output: str


class Sandbox:
    """Runs programs.

    Args:
        packages: a folder of Python packages that programs find as /packages.

    Raises HybridFlowError where there is no bubblewrap, or it cannot make a sandbox.
    """

    def __init__(self, limits: Limits, packages: Path | None = None) -> None:
        self._limits = limits
        self._packages = ["--ro-bind", str(packages), "/packages"] if packages else []
        found = shutil.which("bwrap")
        if found is None:
            raise HybridFlowError(f"bwrap is not on the PATH; {HINT}")
        self._bwrap = found
        self._try()

    def run(self, program: str, stdin: str, timeout_s: float) -> Ended:
        """Run a program with a text as its standard input."""
        return self._run("stdin", program, stdin, timeout_s)

    def passes(self, program: str, test: str, timeout_s: float) -> bool:
        """Tell whether a test, Python code that knows the program's names, runs to its end."""
        mark = secrets.token_hex()
        ended = self._run("asserts", program, json.dumps({"test": test, "mark": mark}), timeout_s)
        return ended.status == 0 and mark in ended.output

    def _try(self) -> None:
        with _in_memory("print(1)") as program:
            tried = subprocess.run(
                self._command("stdin", program, PROBE_S), stdin=subprocess.DEVNULL, capture_output=True,
                pass_fds=[program], env={}, timeout=PROBE_S, check=False,
            )  # fmt: skip
        if tried.returncode or tried.stdout != b"1\n":
            said = tried.stderr.decode(errors="replace").strip()[-500:]
            raise HybridFlowError(
                f"{self._bwrap} cannot make a sandbox here: {said or f'exit {tried.returncode}'}; {HINT}"
            )

    def _run(self, mode: str, program: str, stdin: str, timeout_s: float) -> Ended:
        with ExitStack() as files:
            source, given, output = (files.enter_context(_in_memory(text)) for text in (program, stdin, ""))
            with interrupt.blocked():
                process = subprocess.Popen(
                    self._command(mode, source, timeout_s), stdin=given, stdout=output, stderr=subprocess.DEVNULL,
                    pass_fds=[source], env={},
                )  # fmt: skip
            status: int | None = None
            try:
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()  # the processes in the sandbox end with it
                process.wait()
            # A file at most as long as the limit: what was written went through it.
            written = os.pread(output, self._limits.file_mb * MEGABYTE + 1, 0)
        return Ended(status, written.decode(errors="replace"))

    def _command(self, mode: str, program: int, timeout_s: float) -> list[str]:
        limits = self._limits
        size = str(limits.file_mb * MEGABYTE)
        python = os.path.realpath(sys.executable)
        numbers = (math.ceil(timeout_s), limits.memory_mb * MEGABYTE, limits.processes, limits.file_mb * MEGABYTE)
        return [
            self._bwrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
            "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox",
            "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
            "--size", size, "--tmpfs", "/tmp", "--size", size, "--tmpfs", "/home",
            "--ro-bind", "/usr", "/usr", *_system(), *_python(python), *self._packages,
            "--ro-bind", sandbox_launcher.__file__, "/launcher.py", "--ro-bind-data", str(program), "/program.py",
            "--remount-ro", "/", "--chdir", "/home",
            python, "-I", "-B", "-X", "utf8", "/launcher.py", mode, *map(str, numbers),
        ]  # fmt: skip


def _system() -> Iterator[str]:
    """Yield the arguments for the system's folders beside /usr."""
    for place in SYSTEM:
        if os.path.islink(place):
            yield from ("--symlink", os.readlink(place), place)
        elif os.path.isdir(place):
            yield from ("--ro-bind", place, place)


def _python(python: str) -> Sequence[str]:
    """Return the arguments for a Python that is installed elsewhere than under /usr: its own folder alone."""
    prefix = os.path.realpath(sys.base_prefix)
    needed = {prefix} | (set() if Path(python).is_relative_to(prefix) else {python})
    return [
        part for path in sorted(needed) if not Path(path).is_relative_to("/usr") for part in ("--ro-bind", path, path)
    ]


@contextmanager
def _in_memory(text: str) -> Iterator[int]:
    """Give the descriptor of a file in memory that has a text, to be read from its beginning."""
    descriptor = os.memfd_create("hybridflow-sandbox")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "replace"))  # half of a surrogate pair is no character
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
