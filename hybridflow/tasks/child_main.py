"""Main function of a process beside a rank: `python -m MODULE CHANNEL PLACE LIFELINE` calls `serve`. No torch.

What its components print goes where the rank's own output goes; the channel is a descriptor of its own. The process
ends with its rank, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from hybridflow import interrupt
from hybridflow.errors import line_and_trace
from hybridflow.registry import Registry, import_plugins
from hybridflow.tasks.grading_channel import Channel, Place
from hybridflow.tasks.grading_guard import fork_guarded

LONGEST = 20_000  # characters of an exception's text or traceback
FAULTS = (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError)
"""What a component may raise, by which it alone has failed: it may exit, or cancel its own tasks, too. An interrupt is
its own as well, as those that a terminal sends are left to the driver."""
Serve = Callable[[], None]


def serve(make: Callable[[Channel, Place, Mapping[str, Any]], Serve]) -> None:
    """Serve the rank at the other end of the descriptor that the command line names, until it closes its end.

    Args:
        make: makes of the channel, the shared place and what the rank has told first what serves it from then on.
    """
    interrupt.leave_to_driver()
    descriptor, shared, lifeline = (int(argument) for argument in sys.argv[1:4])
    for number in (descriptor, shared, lifeline):
        os.set_inheritable(number, False)  # what components start must not hold them open
    fork_guarded(lifeline, descriptor, shared)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # or what it prints is lost when it is killed
    channel = Channel(socket.socket(fileno=descriptor))
    os.register_at_fork(after_in_child=channel.close)  # what a component forks is to say nothing
    try:
        told = channel.receive()
        try:
            sys.path[:] = told["path"]
            os.environ.pop("PYTHONPATH", None)
            os.environ.update({"PYTHONPATH": told["pythonpath"]} if told["pythonpath"] else {})
            run = make(channel, Place(shared), told)
        except BaseException as error:  # a plugin may raise anything
            channel.send({"failed": f"{type(error).__name__}: {error}"[:LONGEST]})
            return
        channel.send({"ready": True})
        run()
    except EOFError:  # the rank has closed its end: the run is over
        pass


def find(registry: Registry[Any], name: str, module: str, plugins: Sequence[str]) -> None:
    """Register a component by importing the module that has it, or else what the user's modules register.

    That module alone may be lighter than all plugins, some of which import torch.
    """
    if name not in registry and module not in ("__main__", "builtins", ""):
        with suppress(ImportError):  # perhaps it is only found by way of the plugins
            import_module(module)
    if name not in registry:
        import_plugins(list(plugins))


def described(error: BaseException) -> tuple[str, str]:
    """Describe an exception: itself in one line, and its traceback."""
    line, trace = line_and_trace(error, lambda it: f"{type(it).__name__}: {it}")
    return line[:LONGEST], trace[-LONGEST:]
