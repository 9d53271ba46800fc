"""Facts of this machine that runs depend on, looked up and not judged: `machine_checks` does that."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hybridflow.config import temporary_folder
from hybridflow.errors import HybridFlowError
from hybridflow.observe.host_memory import HostMemory, host_memory
from hybridflow.parallel.host_address import LOOPBACK
from hybridflow.placement.hardware import cpu_quota, local_cpus, local_gpus
from hybridflow.runtime import meeting_folder
from hybridflow.tasks.sandbox import Limits, Sandbox

LINUX = "Linux"
SERVICES = ("gcs_server", "raylet")  # of a node of Ray
OWN_FOLDER = re.compile(rf"(/[^\s\0]*/{temporary_folder.PREFIX}[^/\s\0]+)/")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS", "PYTHONPATH")


@dataclass(frozen=True)
class Room:
    """Bytes that are free in a folder's file system, and of how many; and whether this user may write there."""

    path: str
    free: int
    total: int
    writable: bool = True


@dataclass(frozen=True)
class RayService:
    """Process of Ray that belongs to this user.

    Attributes:
        folder: of the run that started it; empty: it is of a cluster that was started otherwise, as by `ray start`.
        abandoned: the process of that run has ended.
    """

    pid: int
    name: str
    folder: str = ""
    abandoned: bool = False


@dataclass(frozen=True)
class Machine:
    """What runs depend on.

    Attributes:
        gpus: that the driver shows to this process.
        cpus: cores that this process may use.
        cpu_quota: cores' worth of time that its cgroup may take; None: no limit.
        memory: that is left; None: the system does not tell.
        shared_memory: /dev/shm; None: there is none.
        temporary: what is wrong with the folder for temporary files; empty: nothing.
        loopback: why nothing can be reached at 127.0.0.1; empty: it can.
        open_files: the most that a process may have open; Ray raises its own limit to that.
        processes: and threads, that its cgroup may have; None: no limit.
        proxies, no_proxy: of the environment.
        services: Ray's processes.
        abandoned: folders of runs that were killed, with nobody using them.
        compiler: g++; empty: there is none.
        sandbox: why programs cannot be run in one; empty: they can.
        hub_cache, hub_offline: where models and datasets of the hub are kept, and that no others may be had.
    """

    system: str = LINUX
    processor: str = "x86_64"
    gpus: int = 0
    cpus: int = 1
    cpu_quota: float | None = None
    memory: HostMemory | None = None
    shared_memory: Room | None = None
    rooms: Mapping[str, Room] = field(default_factory=dict)
    temporary: str = ""
    loopback: str = ""
    open_files: int = 65536
    processes: int | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    services: tuple[RayService, ...] = ()
    abandoned: tuple[str, ...] = ()
    compiler: str = ""
    sandbox: str = ""
    hub_cache: str = ""
    hub_offline: bool = False


def look(runs: Path) -> Machine:
    """Look at this machine; a second at most.

    Args:
        runs: where runs are to be written; the folder need not be there yet.
    """
    from huggingface_hub import constants

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    shared = Path("/dev/shm")
    return Machine(
        system=platform.system(),
        processor=platform.machine(),
        gpus=local_gpus(),
        cpus=local_cpus(),
        cpu_quota=cpu_quota(),
        memory=host_memory(),
        shared_memory=room(shared) if shared.is_dir() else None,
        rooms={"runs": room(runs), "temporary files": room(temporary_folder.places()[-1])},
        temporary=temporary_folder.problem() or "",
        loopback=_loopback(),
        open_files=2**31 if hard == resource.RLIM_INFINITY else hard,
        processes=_most_processes(),
        proxies={name: os.environ[key] for name in PROXIES for key in (name.upper(), name) if os.environ.get(key)},
        no_proxy=os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "",
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        services=tuple(services()),
        abandoned=tuple(str(path) for place in temporary_folder.places() for path in _abandoned(place)),
        compiler=shutil.which("g++") or "",
        sandbox=_sandbox(),
        hub_cache=str(constants.HF_HUB_CACHE),
        hub_offline=bool(constants.HF_HUB_OFFLINE),
    )


def room(path: Path) -> Room:
    """Return the room where a folder is, or will be: that of the nearest one above it that is there."""
    path = path.absolute()
    there = next(folder for folder in (path, *path.parents) if os.path.exists(folder))  # where it may look, too
    usage = shutil.disk_usage(there)
    return Room(str(path), usage.free, usage.total, os.access(there, os.W_OK | os.X_OK))


def services(root: Path = Path("/proc"), user: int | None = None) -> Iterator[RayService]:
    """Yield Ray's services that a user runs on this machine.

    Args:
        root: where processes are.
        user: None: who runs this.
    """
    user = os.getuid() if user is None else user
    for process in sorted((entry for entry in root.iterdir() if entry.name.isdecimal()), key=lambda one: int(one.name)):
        with suppress(OSError):  # it has ended
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            name = Path(command.split("\0")[0]).name
            if name in SERVICES and process.stat().st_uid == user:
                found = OWN_FOLDER.search(command)
                folder = found[1] if found else ""
                gone = bool(folder) and meeting_folder.is_abandoned(Path(folder))
                yield RayService(int(process.name), name, folder, gone)


def _abandoned(place: Path) -> Iterator[Path]:
    for prefix in (temporary_folder.PREFIX, meeting_folder.PREFIX):
        yield from (folder for folder in sorted(place.glob(f"{prefix}*")) if meeting_folder.is_abandoned(folder))


def _loopback() -> str:
    """Connect to this machine by its loopback interface, as Ray's services and ranks of one machine do."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
            return ""
    except OSError as error:
        return str(error)


def _most_processes(root: Path = Path("/")) -> int | None:
    """Return how many processes and threads the cgroup of this process may have, by version 2 of cgroups."""
    with suppress(OSError, ValueError):
        (line,) = (one for one in (root / "proc/self/cgroup").read_text().splitlines() if one.startswith("0::"))
        mount = root / "sys/fs/cgroup"
        inner = mount / line.removeprefix("0::").lstrip("/")
        limits = [folder / "pids.max" for folder in (inner, *inner.parents) if folder.is_relative_to(mount)]
        known = [file.read_text().strip() for file in limits if file.is_file()]
        return min((int(text) for text in known if text != "max"), default=None)
    return None


def _sandbox() -> str:
    try:
        Sandbox(Limits())
    except HybridFlowError as error:
        return str(error)
    return ""
