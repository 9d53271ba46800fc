"""Changes to how Ray 2.60 starts a local cluster, for which `ray.init` has no settings; each says its reason."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._raylet import AuthenticationTokenLoader

from hybridflow.controller import agent_process


@contextmanager
def own_token(local: bool) -> Iterator[None]:
    """Give a local cluster a token for it alone while it starts; Ray 2.60 would else write one into the home folder."""
    name = "RAY_AUTH_TOKEN"
    if not local or name in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        yield
        return
    os.environ[name] = secrets.token_hex(32)
    forget_token()
    try:
        yield
    finally:
        del os.environ[name]


def forget_token() -> None:
    """Let Ray read its token anew: it keeps the first that a process had, and the next cluster has another."""
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def on_loopback(local: bool) -> Iterator[None]:
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
def without_idle_processes(local: bool) -> Iterator[None]:
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
    own = {"worker_path": str(Path(__file__).with_name("worker_process.py"))}
    private.parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False, **own)
    private.services.start_api_server = lambda *_, **__: (None, None)  # as if it had failed, which Ray allows
    os.environ[name] = "0"
    try:
        yield
    finally:
        private.parameter.RayParams = parameters
        private.services.start_api_server = start_server
        del os.environ[name]


@contextmanager
def own_environment(local: bool, environment: Mapping[str, str]) -> Iterator[None]:
    """Give all processes of a local cluster this environment, while it starts, and not this process from then on.

    A runtime environment, which processes of a cluster that is joined get it by, costs more: see `worker_process`.
    """
    before = {name: os.environ.get(name) for name in environment if local}
    os.environ.update(environment if local else {})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


@contextmanager
def agents_that_end(local: bool, *, when_asked: bool = False) -> Iterator[None]:
    """Let the agents of Ray 2.60 end with their raylet, not a minute later, while a local cluster starts.

    A raylet ends with the driver, also with one that is killed.

    Args:
        when_asked: they only begin where somebody asks them something; see `agent_process`.
    """
    if not local:
        yield
        return
    services, types = ray._private.services, ray._private.ray_constants
    agents = (types.PROCESS_TYPE_DASHBOARD_AGENT, types.PROCESS_TYPE_RUNTIME_ENV_AGENT)
    python = services._build_python_executable_command_memory_profileable

    def command(component: str, *args: Any, **kwargs: Any) -> list[str]:
        program = [agent_process.__file__, *([agent_process.WHEN_ASKED] if when_asked else [])]
        return [*python(component, *args, **kwargs), *(program if component in agents else [])]

    services._build_python_executable_command_memory_profileable = command
    try:
        yield
    finally:
        services._build_python_executable_command_memory_profileable = python
