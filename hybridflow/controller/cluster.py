"""The Ray cluster of a run: one of its own, or one that it joins and never stops."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import ray

from hybridflow.controller import interrupt
from hybridflow.errors import HybridFlowError

# Every process of the cluster: one thread a slot; traffic of a local cluster stays on the loopback interface.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
KNOCK_TIMEOUT_S = 5.0
LOCAL_ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}


@contextmanager
def cluster(address: str = "local", *, slots: int | None = None, plugins: Sequence[str] = ()) -> Iterator[None]:
    """Start (`local`) or join (`auto`, an address) a cluster, and leave it at the end.

    Args:
        slots: processes that a local cluster must have room for; a slot may share a CPU with another.
        plugins: modules of the user that ranks import. A cluster that is joined may have nodes that do not see the
            driver's folders: what is not installed goes there as Ray's `py_modules`, its whole package.

    Raises HybridFlowError if there is no cluster to join.
    """
    local = address == "local"
    environment = {**ENVIRONMENT, **(LOCAL_ENVIRONMENT if local else {}), "PYTHONPATH": os.pathsep.join(_python_path())}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    own = [] if local else _not_installed(plugins)
    carried = {"py_modules": own} if own else {}  # Ray 2.60 starts no process if the list is empty
    options = {"num_cpus": slots, "_node_ip_address": "127.0.0.1", "include_dashboard": False} if local else {}
    try:
        if address not in ("local", "auto"):
            _knock(address)
        with _on_loopback(local):
            ray.init(
                address=address,
                runtime_env={"env_vars": environment, **carried},
                log_to_driver=False,
                logging_level="ERROR",
                **options,
            )
    except OSError as error:  # ConnectionError, Ray's own for this, is one
        raise HybridFlowError(f"ray.address: no Ray cluster at {address!r} ({error}); use ray.address=local") from error
    try:
        with interrupt.heeded():  # after ray.init, which sets handlers of its own
            yield
    finally:
        gc.unfreeze()  # what `ResourcePool.play` froze, so that the interpreter can take it down in order at its end
        ray.shutdown()


@contextmanager
def _on_loopback(local: bool) -> Iterator[None]:
    """While a local cluster starts: let Ray 2.60 take 127.0.0.1 for an answer.

    It replaces the loopback address by one that other machines can reach, on systems where it can form a cluster of
    several, and then listens on all interfaces. This switch of its own says that there is one machine only. Ray reads
    it when it is imported; the processes that it starts read the environment.
    """
    constants, name = ray._private.ray_constants, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = not local
    if local:
        os.environ[name] = "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        if local:
            del os.environ[name]


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OSError("an address is host:port")
    with socket.create_connection((host, int(port)), timeout=KNOCK_TIMEOUT_S):
        pass


def _not_installed(plugins: Sequence[str]) -> list[ModuleType]:
    """The packages of these modules that stand beside the driver, not among its installed ones."""
    packages = [import_module(name) for name in dict.fromkeys(plugin.partition(".")[0] for plugin in plugins)]
    return [package for package in packages if "site-packages" not in str(package.__file__ or list(package.__path__))]


def _python_path() -> list[str]:
    """Where the driver finds modules that are not installed: plugins beside the user's experiment."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(
        dict.fromkeys(
            path for path in [os.getcwd(), *known, *(p for p in sys.path if "site-packages" not in p)] if path
        )
    )
