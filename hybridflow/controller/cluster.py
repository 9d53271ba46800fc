"""The Ray cluster of a run: one of its own, or one that it joins and never stops."""

from __future__ import annotations

import gc
import getpass
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray._raylet import AuthenticationTokenLoader

from hybridflow import interrupt
from hybridflow.config import temporary_folder
from hybridflow.controller import ray_services, search_path
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
KNOCK_TIMEOUT_S = 5.0

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
                carried["worker_process_setup_hook"] = setup
                options["job_config"] = search_path.NoFoldersOfTheDriver()
            if not local:
                found = _running_address() if address == "auto" else address
                _knock(found)
                _warn_if_open(found)
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
                _on_loopback(local),
                _without_idle_processes(local),
                agents_that_end(local),
                _own_token(local),
                search_path.standard_first(),
            ):
                _init(
                    address=address,
                    runtime_env={"env_vars": environment, **carried},
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
        with interrupt.by_ray(), interrupt.deferred():
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
    _forget_token()


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


@contextmanager
def _own_token(local: bool) -> Iterator[None]:
    """Give a local cluster a token for it alone while it starts; Ray 2.60 would else write one into the home folder."""
    name = "RAY_AUTH_TOKEN"
    if not local or name in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        yield
        return
    os.environ[name] = secrets.token_hex(32)
    _forget_token()
    try:
        yield
    finally:
        del os.environ[name]


def _forget_token() -> None:
    """Let Ray read its token anew: it keeps the first that a process had, and the next cluster has another."""
    AuthenticationTokenLoader.instance().reset_cache()


def _running_address() -> str:
    """Return the address that `auto` stands for. Raises ConnectionError if there is none."""
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as ray.init does
    return str(ray._private.services.canonicalize_bootstrap_address_or_die("auto"))


@contextmanager
def _on_loopback(local: bool) -> Iterator[None]:
    """Let Ray 2.60 take 127.0.0.1 for an answer while a local cluster starts.

    It replaces the loopback address by one that other machines can reach, on systems where it can form a cluster of
    several, and then listens on all interfaces. This switch of its own says that there is one machine only. Ray reads
    it when it is imported; the processes that it starts read the environment.
    """
    constants = ray._private.ray_constants
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = before and not local
    if local:
        os.environ[name] = "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        if local:
            del os.environ[name]


@contextmanager
def _without_idle_processes(local: bool) -> Iterator[None]:
    """Let Ray 2.60 start no process that a run has no use for, while a local cluster starts.

    They would take two seconds of computing, and as long before the first rank. `ray.init` has no settings for the
    autoscaler, though no node can join a cluster of one machine, nor for what sends logs to the driver, though
    `log_to_driver=False` forgets them there; without its dashboard it starts the dashboard's server all the same; and
    for each slot a worker, which is of no use to ranks, as these have an environment of their own.
    """
    if not local:
        yield
        return
    private, name = ray._private, "RAY_prestart_worker_first_driver"
    parameters, start_server = private.parameter.RayParams, private.services.start_api_server
    private.parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False)
    private.services.start_api_server = lambda *_, **__: (None, None)  # as if it had failed, which Ray allows
    os.environ[name] = "0"
    try:
        yield
    finally:
        private.parameter.RayParams = parameters
        private.services.start_api_server = start_server
        del os.environ[name]


@contextmanager
def agents_that_end(local: bool) -> Iterator[None]:
    """Let the agents of Ray 2.60 end with their raylet, not a minute later, while a local cluster starts.

    A raylet ends with the driver, also with one that is killed.
    """
    if not local:
        yield
        return
    services, types = ray._private.services, ray._private.ray_constants
    agents = (types.PROCESS_TYPE_DASHBOARD_AGENT, types.PROCESS_TYPE_RUNTIME_ENV_AGENT)
    python = services._build_python_executable_command_memory_profileable

    def command(component: str, *args: Any, **kwargs: Any) -> list[str]:
        program = [str(Path(__file__).with_name("agent_process.py"))] if component in agents else []
        return [*python(component, *args, **kwargs), *program]

    services._build_python_executable_command_memory_profileable = command
    try:
        yield
    finally:
        services._build_python_executable_command_memory_profileable = python


def _knock(address: str) -> None:
    """Raise OSError if no Ray answers at `host:port`, and Ray's AuthenticationError if it wants another token.

    Ray itself would try for minutes, and then say neither.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OSError("an address is host:port")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S):
        pass
    if address.startswith("ray://"):  # another service
        return
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(address) as channel:  # with the token of this run, if it has one
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=KNOCK_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise ray.exceptions.AuthenticationError(error.details()) from error
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ConnectionError("something listens there, but it is no Ray that answers") from error


def _warn_if_open(address: str) -> None:
    """Warn of a cluster that answers whoever asks: it runs programs for anyone who reaches its ports."""
    if address.startswith("ray://"):
        return
    import grpc

    with grpc.insecure_channel(address) as channel:  # without the token that this run may have
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=KNOCK_TIMEOUT_S)
        except grpc.RpcError:  # it wants a token, or TLS
            return
    log.warning(
        "ray.address: the cluster at %s asks for no token: whoever reaches its ports can run programs as its user, and "
        "read and change this run. Start it with RAY_AUTH_MODE=token (docs/security.md)",
        address,
    )


def _not_installed(plugins: Sequence[str]) -> list[ModuleType]:
    """List the packages of these modules that stand beside the driver, not among its installed ones."""
    packages = [import_module(name) for name in dict.fromkeys(plugin.partition(".")[0] for plugin in plugins)]
    return [package for package in packages if "site-packages" not in str(package.__file__ or list(package.__path__))]
