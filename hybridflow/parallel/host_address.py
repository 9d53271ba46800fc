"""Address by which others reach this machine, and what listens where because of it. No torch."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

VARIABLE = "HYBRIDFLOW_HOST_ADDRESS"
LOOPBACK = "127.0.0.1"
ONE_MACHINE = {VARIABLE: LOOPBACK, "GLOO_SOCKET_IFNAME": "lo"}
"""The environment of processes that are all on one machine: nothing that they open can be reached from another."""

SIOCGIFADDR = 0x8915  # netdevice(7)


def be_reachable(address: str) -> None:
    """Let gloo, and engines that ask `listen_at`, listen where this machine has the address its cluster knows it by.

    Left alone gloo asks what the host's own name stands for, often the loopback interface, and an engine perhaps what
    leads to the internet; a replica that spans machines then waits for ever. What the environment says already, stays:
    a cluster of one machine says the loopback interface.
    """
    os.environ.setdefault(VARIABLE, address)
    if (interface := interface_of(address)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def listen_at(variable: str) -> None:
    """Set an engine's own variable to this machine's address, unless its environment has another already.

    Where there is one machine only it is overridden: what a user once set for a cluster must open no port to others.
    """
    address = os.environ.get(VARIABLE)
    if address == LOOPBACK:
        os.environ[variable] = address
    else:
        os.environ.setdefault(variable, address or LOOPBACK)


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
