"""Where the processes of several machines reach this one."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

SIOCGIFADDR = 0x8915  # netdevice(7)


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
