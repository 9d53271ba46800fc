"""The Ray cluster of a run: one of its own, or one that it joins and never stops."""

from __future__ import annotations

import gc
import getpass
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import ray

from hybridflow import interrupt
from hybridflow.config import temporary_folder
from hybridflow.controller import ray_services, ray_start, running_cluster, search_path
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.observe import logs
from hybridflow.parallel import host_address
from hybridflow.runtime import meeting_folder
from hybridflow.tasks.grading_guard import descendants

# Every process of the cluster: one thread a slot.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

log = logging.getLogger(__name__)


@contextmanager
def cluster(
    address: str = "local", *, slots: int | None = None, plugins: Sequence[str] = (), store_bytes: int = 0
) -> Iterator[None]:
    """Start (`local`) or join (`auto`, an address) a cluster, and leave it at the end.

    Args:
        slots: processes that a local cluster must have room for; a slot may share a CPU with another.
        plugins: modules of the user that ranks import. A cluster that is joined may have nodes that do not see the
            driver's folders: what is not installed goes there as Ray's `py_modules`, its whole package.
        store_bytes: of a local cluster's object store; 0: as Ray has it.

    Raises HybridFlowError if there is no cluster to join, or if none can be started; it says why.
    """
    local = address == "local"
    environment = {**ENVIRONMENT, **(host_address.ONE_MACHINE if local else {}), **search_path.environment()}
    environment |= {logs.LEVEL: os.environ[logs.LEVEL]} if logs.LEVEL in os.environ else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    own = [] if local else _not_installed(plugins)
    carried: dict[str, Any] = {"py_modules": own} if own else {}  # Ray 2.60 starts no process if the list is empty
    options: dict[str, Any] = (
        {"num_cpus": slots, "_node_ip_address": host_address.LOOPBACK, "include_dashboard": False} if local else {}
    )
    folders: list[Path] = []
    with interrupt.heeded(), interrupt.ShieldedStack() as stack:
        with _explained(address), search_path.process_setup() as setup:
            if not address.startswith("ray://"):  # Ray's client takes neither, and adds no folders of its own
                carried |= {} if local else {"worker_process_setup_hook": setup}
                options["job_config"] = search_path.NoFoldersOfTheDriver()
            if not local:
                found = running_cluster.running_address() if address == "auto" else address
                running_cluster.knock(found)
                running_cluster.warn_if_open(found)
                if not address.startswith("ray://"):
                    stack.enter_context(ray_services.head_watched(found))
            elif problem := temporary_folder.problem():
                raise ConfigError(problem)
            else:
                options |= {"object_store_memory": store_bytes} if store_bytes else {}
                folders = [stack.enter_context(_folder(place)) for place in temporary_folder.places()]
                options["_temp_dir"] = str(folders[0] / temporary_folder.OF_RAY)
                environment |= _temporary_files(folders)
            with (
                ray_start.on_loopback(local),
                ray_start.without_idle_processes(local),
                ray_start.agents_that_end(local, when_asked=True),
                ray_start.own_token(local),
                ray_start.own_environment(local, environment),
                search_path.standard_first(),
            ):
                _init(
                    address=address,
                    runtime_env=None if local else {"env_vars": environment, **carried},
                    log_to_driver=False,
                    logging_level="ERROR",
                    **options,
                )
        try:
            with ray_services.watched(folders):
                yield
        finally:
            with interrupt.shielded():
                gc.unfreeze()  # what pools froze, so that the interpreter can take it down in order
                _leave()


@contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """Make a folder for this cluster that nobody else can look into; Ray opens its own, which is in it, to all."""
    folder = meeting_folder.make(temporary_folder.PREFIX, place)
    try:
        yield folder
    finally:
        meeting_folder.remove(folder)


def _temporary_files(folders: Sequence[Path]) -> dict[str, str]:
    """Return the environment in which temporary files of ranks are in the cluster's folders, and so go with it.

    Libraries remove theirs (vLLM its sockets, wandb two folders a process) when a process ends by itself; ranks are
    killed. What torch has compiled is worth keeping, and stays where it would be.

    Args:
        folders: for sockets, and for files.
    """
    own = [folder / temporary_folder.OF_RANKS for folder in folders]
    for folder in own:
        folder.mkdir()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # of a user without a name, as containers have them
        user = f"uid_{os.getuid()}"
    compiled = f"{tempfile.gettempdir()}/torchinductor_{user}"
    libraries = {"VLLM_RPC_BASE_PATH": str(own[0]), "TORCHINDUCTOR_CACHE_DIR": compiled}
    return {"TMPDIR": str(own[-1]), **{name: os.environ.get(name) or value for name, value in libraries.items()}}


def _init(**options: Any) -> None:
    """Start Ray; a signal that came meanwhile ends it again, and so does an error, with all that Ray has started."""
    before = descendants(os.getpid())
    ray._private.worker.print_to_stdstream = _log  # as `log_to_driver=False` leaves what it says of lost processes
    try:
        with interrupt.by_ray(), interrupt.deferred(), logs.timed(log, "Ray"):
            ray.init(**options)
    except BaseException as error:
        with interrupt.shielded():
            if isinstance(error, KeyboardInterrupt):
                _leave()
            _end(pid for pid in descendants(os.getpid()) if pid not in before)
        raise


def _log(message: dict[str, Any], **_: bool) -> None:
    """Take note of what Ray would print, among other lines, of a process or a node that is lost: pages of its logs."""
    log.info("ray: %s", "\n".join(message["lines"]))


def _leave() -> None:
    """Leave the cluster, and end what of it this process has started.

    Ray ends its daemons by SIGTERM, and waits for each. Those of ours do not get it (`interrupt.deferred`); ranks have
    been ended before, by their pools.
    """
    node = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes = partial(_kill, node, node.kill_all_processes)
    ray.shutdown()
    interrupt.heed_again()
    ray_start.forget_token()


def _kill(node: Any, all_processes: Callable[..., None], *, allow_graceful: bool, **options: bool) -> None:
    interrupt.heed_again()  # before what takes long
    daemons = [each.process.pid for known in node.all_processes.values() for each in known]
    started = [pid for daemon in daemons for pid in descendants(daemon)]
    all_processes(allow_graceful=False, **options)
    _end(started)  # they would look for their daemon every so often, and meanwhile write into its folder


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cluster_cpus() -> int:
    """Count the CPUs of the cluster that this process is in."""
    return int(ray.cluster_resources().get("CPU", 0))


def cluster_gpus() -> int:
    """Count the GPUs of the cluster that this process is in."""
    return int(ray.cluster_resources().get("GPU", 0))


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Raise HybridFlowError with the cause for what Ray raises when it starts a cluster, ConfigError when it joins."""
    try:
        yield
    except ray.exceptions.AuthenticationError as error:
        raise ConfigError(
            f"ray.address: the cluster at {address!r} wants another token than this run has: set RAY_AUTH_MODE=token, "
            "and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it (~/.ray/auth_token where the cluster was "
            "started)"
        ) from error
    except (OSError, RuntimeError) as error:  # ConnectionError, Ray's own for this, is an OSError
        message = " ".join(str(error).split())
        if address == "local":
            raise HybridFlowError(f"ray: no cluster could be started on this machine: {message}") from error
        raise ConfigError(f"ray.address: no Ray cluster at {address!r} ({message}); use ray.address=local") from error


def _not_installed(plugins: Sequence[str]) -> list[ModuleType]:
    """List the packages of these modules that stand beside the driver, not among its installed ones."""
    packages = [import_module(name) for name in dict.fromkeys(plugin.partition(".")[0] for plugin in plugins)]
    return [package for package in packages if "site-packages" not in str(package.__file__ or list(package.__path__))]
