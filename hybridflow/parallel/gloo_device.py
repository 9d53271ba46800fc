"""One gloo device for all process groups of a process.

torch 2.13 makes a device for each group: a socket that listens, and a thread that wakes every 10 ms. A rank has dozens
of groups (each role's axes, the engines' own), whose threads then take several per cent of a core doing nothing. A
device serves any number of groups, but `torch.distributed.new_group` has no way to hand one in, so `apply` replaces the
constructor that it calls; it goes away when torch shares a device by itself.
"""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed as dist
from torch.distributed import Store

INTERFACES = "GLOO_SOCKET_IFNAME"  # torch's variable: the interfaces that gloo uses, by commas


def apply() -> None:
    """Replace the constructor in this process; a second call changes nothing."""
    made = dist.ProcessGroupGloo.__init__
    if hasattr(made, "_shares_a_device"):
        return

    @functools.wraps(made)
    def init(
        group: Any, store: Store, rank: int, size: int, options: Any = None, *, timeout: timedelta | None = None
    ) -> None:
        if isinstance(options, timedelta):
            timeout, options = options, None
        if options is None:
            options = dist.ProcessGroupGloo._Options()
            options._devices = devices(os.environ.get(INTERFACES, ""))
            options._threads = 2 * len(options._devices)
            if timeout is not None:
                options._timeout = timeout
        made(group, store, rank, size, options)

    init._shares_a_device = True  # type: ignore[attr-defined]
    dist.ProcessGroupGloo.__init__ = init


@cache
def devices(interfaces: str) -> list[Any]:
    """Make this process's devices: one for each interface, as torch does, or the one of the host's own name."""
    names = [name for name in interfaces.split(",") if name]
    gloo = dist.ProcessGroupGloo
    return [gloo.create_device(interface=name) for name in names] or [gloo.create_default_device()]
