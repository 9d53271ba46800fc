"""Rendezvous of processes before they have a process group: by a file where they share a machine, else by a store that
one of them serves.

The store's port is bound when it is chosen and stays so; a port that is only looked up may be another's by the time it
is used.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta
from urllib.parse import urlsplit

import torch.distributed as dist

SIOCGIFADDR = 0x8915  # netdevice(7)

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


def be_reachable(address: str) -> None:
    """Let gloo and vLLM listen where this machine has the address by which the cluster knows it.

    Left alone gloo asks what the host's own name stands for, often the loopback interface, and vLLM what leads to the
    internet; a replica that spans machines then waits for ever. What the environment says already, stays: a cluster
    of one machine says the loopback interface.
    """
    os.environ.setdefault("VLLM_HOST_IP", address)
    if (interface := interface_of(address)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """Return the network interface that has this IPv4 address; None if none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return None
