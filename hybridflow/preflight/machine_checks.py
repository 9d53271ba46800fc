"""What is well and what is not with a machine that runs are to start on, and what to do. Pure: it is handed in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from hybridflow.errors import counted
from hybridflow.parallel.host_address import LOOPBACK
from hybridflow.preflight.finding import Finding, bad, ok, warn
from hybridflow.preflight.machine import LINUX, Machine
from hybridflow.preflight.torch_facts import TorchFacts

GIB = 2**30
RANK_GIB = 2  # of host memory that a rank with a small model takes, most of it vLLM, Megatron and torch
STORE_SHARE = 0.3  # of memory, that Ray 2.60 gives its object store, unless that is more than fits into /dev/shm
STORE_IN_FILES = 10**10  # bytes that it may have even where /dev/shm has less, and which are files then
DISK_GIB = (1, 10)  # below which no run starts, and a checkpoint may not fit
OPEN_FILES = (1024, 8192)  # Ray 2.60 warns below the second after it has raised the limit as far as it may
RAISE_FILES = f"Ray wants {OPEN_FILES[1]}: raise the hard limit (ulimit -Hn, docker run --ulimit nofile)"
PROCESSES = (200, 2000)  # Ray's services and a rank have some 50 threads each
X86 = "x86_64"


def findings(machine: Machine, torch: TorchFacts) -> list[Finding]:
    """Judge a machine, the lines that matter most first."""
    return [
        *system(machine),
        *_devices(machine, torch),
        *_instructions(machine, torch),
        *_cores(machine),
        *_memory(machine),
        *_shared_memory(machine),
        *_disks(machine),
        *_temporary_files(machine),
        *_network(machine),
        *_proxies(machine),
        *_limits(machine),
        *_ray(machine),
        *_environment(machine),
        *_programs(machine),
    ]


def system(machine: Machine) -> Iterator[Finding]:
    """Yield whether its system is one that runs start on."""
    found = f"{machine.system} on {machine.processor}"
    if machine.system != LINUX:
        yield bad("system", found, "hybridflow runs on Linux: take a Linux machine, a container or WSL 2")
    elif machine.processor != X86:
        yield warn("system", found, "tested on x86-64 alone, and requirements/cpu.lock has builds for that")
    else:
        yield ok("system", found)


def _devices(machine: Machine, torch: TorchFacts) -> Iterator[Finding]:
    hidden = machine.environment.get("CUDA_VISIBLE_DEVICES")
    if torch.error:
        return  # the installation's own finding
    if torch.gpus:
        yield ok("devices", f"{counted(len(torch.gpus), 'GPU')}: {', '.join(sorted({*torch.gpus}))}")
    elif machine.gpus:
        yield bad(
            "devices",
            f"{counted(machine.gpus, 'GPU')}, but torch {torch.version} sees none",
            "install what is for GPUs (docs/install.md), or keep runs on CPUs with placement.device=cpu",
        )
    elif hidden is not None:
        yield ok("devices", f"CPUs: CUDA_VISIBLE_DEVICES={hidden!r} shows no GPU")
    else:
        yield ok("devices", "CPUs: no GPU here")


def _instructions(machine: Machine, torch: TorchFacts) -> Iterator[Finding]:
    """Yield what the CPU's instructions are, and what those that it lacks cost; nothing of a machine with GPUs."""
    if torch.error or torch.gpus or machine.processor != X86:
        return
    if torch.capability == "DEFAULT":
        yield bad("CPU", "no AVX2", "vLLM's CPU build has no code for this CPU: take a machine with AVX2 or AVX-512")
        return
    costs = [] if torch.capability.startswith("AVX512") else ["no AVX-512: its vectors are half as wide"]
    costs += [] if torch.bf16 else ["no bfloat16: runs in it save memory and no time"]
    yield ok("CPU", "; ".join([torch.capability, *costs]))


def _cores(machine: Machine) -> Iterator[Finding]:
    quota = machine.cpu_quota
    if quota is not None and quota < machine.cpus:
        yield warn(
            "cores",
            f"{machine.cpus} seen, but this container may take the time of {quota:g}",
            f"a slot is a core: keep placement.pools at {max(1, int(quota))} slots, and give no pool `auto`",
        )
    else:
        yield ok("cores", f"{machine.cpus}; a slot without a GPU takes one")


def _memory(machine: Machine) -> Iterator[Finding]:
    if machine.memory is None:
        yield warn("memory", "unknown", "nothing watches it here: see that a rank has its 2 GiB")
        return
    ranks = int(machine.memory.left / GIB / RANK_GIB)
    found = f"{machine.memory} left, for {counted(ranks, 'rank')} of {RANK_GIB} GiB"
    if not ranks:
        yield bad("memory", found, "end what takes it, or give the container more")
    elif ranks < 2:
        yield warn("memory", found, "one slot alone (placement.pools.main=1); end what takes memory for more")
    else:
        yield ok("memory", found)


def _shared_memory(machine: Machine) -> Iterator[Finding]:
    """Yield how Ray's object store, which rows travel by, fits into /dev/shm."""
    shared = machine.shared_memory
    if machine.memory is None:
        return
    room = shared.free if shared else 0
    wanted = min(STORE_SHARE * machine.memory.left, max(STORE_IN_FILES, 0.95 * room))
    give = f"docker run --shm-size={math.ceil(wanted / GIB)}g, or a smaller store: ray.object_store_gib=1"
    if shared is None:
        yield bad("/dev/shm", "there is none", f"mount one, as containers do by themselves: {give}")
        return
    found = f"{_gib(shared.free)} of {_gib(shared.total)} free; Ray's store takes {_gib(wanted)}"
    if shared.free >= wanted:
        yield ok("/dev/shm", found)
    else:
        yield warn("/dev/shm", f"{found}, so it is put into files, which is slow", give)


def _disks(machine: Machine) -> Iterator[Finding]:
    for purpose, room in machine.rooms.items():
        found = f"{_gib(room.free)} free for {purpose} in {room.path}"
        key = "run.root=FOLDER" if purpose == "runs" else "TMPDIR=FOLDER"
        if not room.writable:
            yield bad("disk", f"{room.path}, for {purpose}, cannot be written", f"choose another place: {key}")
        elif room.free < DISK_GIB[0] * GIB:
            yield bad("disk", found, f"make room, or choose another disk: {key}")
        elif room.free < DISK_GIB[1] * GIB:
            yield warn("disk", found, f"a checkpoint of 1 G parameters takes 12 GiB: make room, or {key}")
        else:
            yield ok("disk", found)


def _temporary_files(machine: Machine) -> Iterator[Finding]:
    if machine.temporary:
        name, _, rest = machine.temporary.partition(": ")
        found, _, advice = rest.partition(": ")
        yield bad("sockets", f"{name}: {found}", advice)


def _network(machine: Machine) -> Iterator[Finding]:
    if machine.loopback:
        yield bad(
            "ports",
            f"nothing can be reached at {LOOPBACK}: {machine.loopback}",
            "Ray and ranks talk there: bring the interface up (ip link set lo up), or let a firewall pass it",
        )
    else:
        yield ok("ports", f"free ones at {LOOPBACK}; a run on one machine listens nowhere else")


def _proxies(machine: Machine) -> Iterator[Finding]:
    if not machine.proxies:
        return
    passed = {*re.split(r"[\s,]+", machine.no_proxy)}
    lacking = [name for name in (LOOPBACK, "localhost") if name not in passed and "*" not in passed]
    found = f"{', '.join(machine.proxies)} set"
    if lacking:
        given = ",".join([*filter(None, [machine.no_proxy]), *lacking])
        yield warn(
            "proxies",
            f"{found}, also for {' and '.join(lacking)}",
            f"servers on this machine (evaluate's, trackers') would be asked through it: export no_proxy={given}",
        )
    else:
        yield ok("proxies", f"{found}; not for this machine")


def _limits(machine: Machine) -> Iterator[Finding]:
    files = f"at most {machine.open_files} a process"
    if machine.open_files < OPEN_FILES[0]:
        yield bad("open files", files, RAISE_FILES)
    elif machine.open_files < OPEN_FILES[1]:
        yield warn("open files", files, RAISE_FILES)
    else:
        yield ok("open files", files)
    if machine.processes is None:
        return
    found = f"at most {machine.processes} and threads in this container"
    if machine.processes < PROCESSES[0]:
        yield bad("processes", found, "Ray alone has more: docker run --pids-limit=-1")
    elif machine.processes < PROCESSES[1]:
        yield warn("processes", found, "a rank has some 50 threads: docker run --pids-limit=-1")


def _ray(machine: Machine) -> Iterator[Finding]:
    """Yield Ray processes, and folders, that runs have left behind."""
    dead = [service for service in machine.services if service.abandoned]
    others = [service for service in machine.services if not service.abandoned]
    if dead:
        left = f"left of runs that were killed: {counted(len(dead), 'process', 'processes')}"
        yield warn("Ray", left, f"kill {' '.join(str(service.pid) for service in dead)}")
    elif machine.abandoned:
        yield ok("Ray", f"{counted(len(machine.abandoned), 'folder')} of killed runs, which the next run removes")
    runs = len({service.folder for service in others if service.folder})
    joined = [service.pid for service in others if not service.folder]
    if runs:
        yield warn("Ray", f"{counted(runs, 'run')} going on here", "two runs share cores and memory: each takes longer")
    if joined:
        yield ok("Ray", f"a cluster that `ray start` made (process {joined[0]}); ray.address=auto joins it")
    if not dead and not machine.abandoned and not others:
        yield ok("Ray", "nothing left of earlier runs")


def _environment(machine: Machine) -> Iterator[Finding]:
    if path := machine.environment.get("PYTHONPATH"):
        yield warn("PYTHONPATH", path, "what is there hides installed packages: unset it if runs find the wrong ones")
    if address := machine.environment.get("RAY_ADDRESS"):
        yield ok("RAY_ADDRESS", f"{address}; only ray.address=auto looks at it")
    if machine.hub_offline:
        yield ok("hub", f"HF_HUB_OFFLINE is set: only what {machine.hub_cache} has")
    else:
        yield ok("hub", f"asked for models and datasets named so; kept in {machine.hub_cache}")


def _programs(machine: Machine) -> Iterator[Finding]:
    if machine.compiler:
        yield ok("g++", machine.compiler)
    else:
        yield warn("g++", "not on the PATH", "rollout.enforce_eager=false compiles: apt-get install g++ python3-dev")
    if machine.sandbox:
        found, _, _ = machine.sandbox.partition("; ")
        yield warn("sandbox", found, "the graders code_tests and reasoning_gym need it: apt-get install bubblewrap")
    else:
        yield ok("sandbox", "bubblewrap makes one")


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
