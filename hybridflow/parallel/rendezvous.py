"""Rendezvous of processes before they have a process group: by a file where they share a machine, else by a store that
one of them serves.

The store's port is bound when it is chosen and stays so; a port that is only looked up may be another's by the time it
is used.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from urllib.parse import urlsplit

import torch.distributed as dist

_served: list[dist.Store] = []


def serve(address: str) -> int:
    """Serve a store at this address, and at no other, until this process ends; return its port."""
    with socket.socket() as listening:
        listening.bind((address, 0))
        listening.listen()
        port = int(listening.getsockname()[1])
        _served.append(
            dist.TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
        )
    return port


def meet(meeting: str, rank: int, size: int, timeout: timedelta) -> dist.Store:
    """Return the store of those who meet at `file://path` or, where one of them serves it, `tcp://host:port`."""
    if meeting.startswith("tcp://"):
        at = urlsplit(meeting)
        assert at.hostname is not None and at.port is not None
        return dist.TCPStore(at.hostname, at.port, is_master=False, timeout=timeout)
    store, _, _ = next(dist.rendezvous(meeting, rank, size, timeout=timeout))
    store.set_timeout(timeout)
    return store
