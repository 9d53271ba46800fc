"""Services of a cluster that this process started: what Ray itself would only tell after a minute."""

from __future__ import annotations

import ray

from hybridflow.runtime.process_state import GONE, STOPPED, state_of

NAMES = {"gcs_server": "head service", "raylet": "node service"}
PATIENCE = 3  # looks at a service that is stopped

_stopped_looks: dict[str, int] = {}


def pids() -> dict[str, int]:
    """Return their processes by name; none of a cluster that was joined: they are whoever's who started it."""
    node = ray._private.worker._global_node
    if node is None or not node.head:
        return {}
    return {name: node.all_processes[name][0].process.pid for name in NAMES if node.all_processes.get(name)}


def lost() -> list[str]:
    """Return the names of the services that have ended."""
    return [name for name, pid in pids().items() if state_of(pid) in GONE]


def problem() -> str:
    """Describe a service that is not there any more; empty if all are."""
    for name, pid in pids().items():
        state = state_of(pid)
        _stopped_looks[name] = _stopped_looks.get(name, 0) + 1 if state == STOPPED else 0
        how = "has ended" if state in GONE else "is stopped (SIGSTOP)" if _stopped_looks[name] >= PATIENCE else ""
        if how:
            return (
                f"ray: the cluster's {NAMES[name]} {name} (process {pid}) {how}, and without it no process can be "
                "started or found; a run of its own cluster ends with it. Give the same command again: it goes on from "
                "its newest checkpoint, if it kept one (trainer.save_every)"
            )
    return ""
