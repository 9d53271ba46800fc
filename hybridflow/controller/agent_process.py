"""Program in the place of a Ray agent: it is given the agent's program, a Python file with its arguments.

It ends with the raylet that has started it. Ray's own way: an agent looks every few seconds whether its raylet lives,
and then tries for a minute to tell that to a GCS which has died with it.

With `--when-asked` first, as in a cluster of ours, the agent is started only where somebody asks it something, because
each takes a second of computing and the raylet, which waits for its ports, as long to start. A run asks the agent of
runtime environments nothing unless a plugin gives some to processes of its own. What the dashboard's would do nobody
can ask for: there is no dashboard.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules are none of the agent's

import ctypes
import os
import runpy
import signal
import socket

PR_SET_PDEATHSIG = 1
WHEN_ASKED = "--when-asked"
HOOK = "RAY_RUNTIME_ENV_HOOK"  # of whoever gives every process a runtime environment: the agent will be asked at once
DASHBOARD_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
RUNTIME_ENV_PORT = "runtime_env_agent_port"
RUNTIME_ENV_FLAG = "--runtime-env-agent-port="
NONE = -1  # Ray's word for a service that is not there


def main() -> None:
    """Run the file that the first argument names, at once or when it is asked."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["RAY_RAYLET_PID"]):  # it ended before that
        os._exit(1)
    del sys.argv[0]
    if sys.argv[0] == WHEN_ASKED:
        del sys.argv[0]
        if os.path.basename(sys.argv[0]) == "agent.py":
            be_absent()
        elif HOOK not in os.environ:
            wait_to_be_asked()
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def be_absent() -> None:
    """Tell the raylet that there are no such services, and stay: it ends if an agent does."""
    for name in DASHBOARD_PORTS:
        persist_port(name, NONE)
    while True:
        signal.pause()


def wait_to_be_asked() -> None:
    """Listen in the agent's place until somebody connects; it then gets that port. Whoever asked tries again."""
    with socket.create_server((argument("node-ip-address"), 0)) as listening:
        port = listening.getsockname()[1]
        persist_port(RUNTIME_ENV_PORT, port)
        connection, _ = listening.accept()
        connection.close()
    sys.argv = [f"{part.partition('=')[0]}={port}" if RUNTIME_ENV_FLAG in part else part for part in sys.argv]


def persist_port(name: str, port: int) -> None:
    """Write a port where the raylet looks for it, as `ray._raylet.persist_port` does; to import that takes a second."""
    path = os.path.join(argument("session-dir"), f"{name}_{argument('node-id')}")
    with open(f"{path}.tmp", "w") as file:
        file.write(str(port))
    os.rename(f"{path}.tmp", path)


def argument(name: str) -> str:
    """Return the value of one of the agent's arguments."""
    return next(part.partition("=")[2] for part in sys.argv if part.startswith(f"--{name}="))


if __name__ == "__main__":
    main()
