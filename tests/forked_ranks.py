"""A run's driver and ranks, forked from a process that has imported the engines: what they run is the same, but for
the imports.

Those take a rank nine of the twelve seconds that it computes in a short run, and a driver four of five. A light rank,
which has no engine and no torch, is forked from a process that has neither. A test starts a driver by `command`. Ray
asks RAY_RUNTIME_ENV_HOOK before it starts a cluster, or joins one: there `forked` lets this file start its processes.
It hands its arguments, environment and outputs over to a server that forks, and stays for as long as the fork does;
each of the two ends with the other.

A fork does not show in /proc the environment that `processes.marked` finds a run's processes by; whoever asked for it
does. Where ranks must notice by themselves that their run is over, their environment names a folder, ALONE: they do not
end with whoever asked for them, and their numbers are in it.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

HOOK = "RAY_RUNTIME_ENV_HOOK"
SOCKET = "HYBRIDFLOW_TEST_FORKS"
ALONE = "HYBRIDFLOW_TEST_FORKS_ALONE"
MOST_BYTES = 1 << 18
PYTHON = sys.executable
# In the place of Python, as Ray calls it: the program of its workers is run in a fork.
STARTER = """#!/bin/sh
case "$1" in
  */worker_process.py) exec {python} -ISs {client} {socket} "$@" ;;
  *) exec {python} "$@" ;;
esac
"""
# The first sets the environment that the libraries read when they are imported.
IMPORTED = (
    "tests.preloaded",
    "hybridflow.cli.launch",
    "hybridflow.preflight",
    "hybridflow.workers",
    "torch.utils.tensorboard",
    "rich.live",
    "rich.table",
)
# What a light rank, and a driver of such ranks, imports beside Ray.
LIGHT = (
    "asyncio",
    "jsonschema",
    "requests",
    "tqdm",
    "hybridflow.dispatch.column_checks",
    "hybridflow.dispatch.message",
    "hybridflow.observe.logs",
    "hybridflow.placement",
    "hybridflow.roles",
    "hybridflow.runtime.process_state",
    "hybridflow.tasks.grades",
)


@contextmanager
def fork_server(imported: Sequence[str] = IMPORTED) -> Iterator[dict[str, str]]:
    """Serve while in the block; yield the environment of a run that is to be forked.

    Args:
        imported: the modules that a fork finds imported.
    """
    with tempfile.TemporaryDirectory(prefix="hybridflow-forks-") as folder:
        path = f"{folder}/socket"
        starter_of(path).write_text(STARTER.format(python=PYTHON, client=__file__, socket=path))
        starter_of(path).chmod(0o700)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(path)
        listening.listen(64)
        descriptor = listening.fileno()
        command = [PYTHON, "-m", "tests.forked_ranks", str(descriptor), *imported]
        root = Path(__file__).parents[1]
        own = {**os.environ, "TMPDIR": folder}  # what it imports makes temporary files, and it is killed
        server = subprocess.Popen(command, cwd=root, env=own, stdin=subprocess.PIPE, pass_fds=[descriptor])
        listening.close()
        try:
            yield {HOOK: "tests.forked_ranks.forked", SOCKET: path}
        finally:
            server.kill()
            server.communicate()


def command(program: str, *arguments: str, environment: Mapping[str, str]) -> list[str]:
    """What starts a program of Python, as a fork where there is a server in the environment that it will have.

    Args:
        program: its file, `-m` of a module, or the name of a command beside the interpreter.
    """
    path = program if program == "-m" or program.endswith(".py") else str(Path(PYTHON).parent / program)
    by = ["-ISs", __file__, environment[SOCKET]] if SOCKET in environment else []
    return [PYTHON, *by, path, *arguments]


def starter_of(path: str) -> Path:
    """What stands in the place of Python beside the socket of a server."""
    return Path(path).with_name("python")


@contextmanager
def forking(environment: Mapping[str, str]) -> Iterator[None]:
    """Let ranks of clusters that this process starts or joins in the block be forks, by what `fork_server` yields."""
    from unittest.mock import patch  # not where this file is the program that asks for a fork: it takes long

    with patch.dict(os.environ, environment), patch.object(sys, "executable", PYTHON):
        yield


def forked(runtime_env: dict[str, object] | None) -> dict[str, object] | None:
    """Ray's hook: let this file start the processes.

    Of a cluster of the driver's own Ray takes the driver's Python. Of one that is joined it gets a runtime environment,
    which costs an agent that makes it and in each process a second import of Ray.
    """
    if runtime_env is None:
        sys.executable = str(starter_of(os.environ[SOCKET]))
        del os.environ[HOOK]
        return None
    return {**runtime_env, "py_executable": f"{PYTHON} -ISs {__file__} {os.environ[SOCKET]}"}


def ask(path: str, arguments: list[str]) -> int:
    """Have the server run a program of Python in a fork; its exit status, once it has ended. By a signal, if it did."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(path)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_BYTES)
        message = json.dumps([arguments, dict(os.environ), os.getcwd()]).encode()
        server.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        status = int(server.recv(16) or b"1")
    if status < 0:
        os.kill(os.getpid(), -status)
    return status


def serve(listening: socket.socket, imported: Sequence[str]) -> None:
    """Fork for each that asks, until whoever started this is gone. The modules are imported once one asks."""
    sys.modules["ray"] = None  # type: ignore[assignment]  # it reads a process' settings when it is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that mind a fork
    while listening in select.select([0, listening], [], [])[0]:
        for name in imported:
            importlib.import_module(name)
        gc.freeze()  # as `tests.preloaded` does
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            mind(client)
        client.close()


def mind(client: socket.socket) -> NoReturn:
    """Fork, and see to it that neither the fork nor whoever asked for it outlives the other, unless it is alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, ancillary, _, _ = client.recvmsg(MOST_BYTES, socket.CMSG_SPACE(3 * 4))
    outputs = array.array("i", ancillary[0][2])
    arguments, environment, folder = json.loads(message)
    child = os.fork()
    if child == 0:
        client.close()
        run(arguments, environment, folder, outputs)
    alone = environment.get(ALONE)
    if alone:
        Path(alone, str(child)).touch()
    ended = os.pidfd_open(child)
    if client in select.select([ended] if alone else [client, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):  # whoever asked may be gone
        client.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def run(arguments: list[str], environment: dict[str, str], folder: str, outputs: array.array[int]) -> NoReturn:
    """Run `python ARGUMENTS` in a process group of its own: Ray ends the whole group of a process that has ended."""
    os.setsid()
    for number, descriptor in enumerate(outputs):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found anew, in this environment
    os.chdir(folder)
    del sys.modules["ray"]
    end(status_of(arguments, folder))


def status_of(arguments: list[str], folder: str) -> object:
    """Be `python ARGUMENTS` to its end; what it would exit with."""
    try:
        if arguments[0] == "-m":
            sys.argv, sys.path[0] = arguments[1:], folder
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(arguments[0])
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # there is one
        return 1
    return 0


def end(status: object) -> NoReturn:
    """Do all that Python does at its end, but for taking down what the server has imported."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
