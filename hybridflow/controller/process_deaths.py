"""The end of a process of this machine that is no child of this one: Ray does not say its signal or exit code.

A pidfd that was opened while the process ran tells it afterwards (`PIDFD_GET_INFO`, Linux 6.15; include/uapi/linux/
pidfd.h). Elsewhere what Ray says must do.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from contextlib import suppress

from hybridflow.observe.exit_codes import describe_exit

GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
INFO_EXIT = 1 << 3  # of its mask: `exit_code`, its last four bytes, is there
REAPED_WITHIN_S = 1.0  # the code is there once the parent has taken note of the end

_watched: dict[int, int] = {}  # process id: pidfd


def watch(pid: int) -> None:
    """Remember a process of this machine, so that `ending` may be asked about it."""
    with suppress(OSError, AttributeError):  # it has ended, or this system has no pidfds
        _watched[pid] = os.pidfd_open(pid)


def forget(pid: int) -> None:
    """Nobody will ask about it."""
    descriptor = _watched.pop(pid, None)
    if descriptor is not None:
        os.close(descriptor)


def ending(pid: int | None, rays_message: str) -> str:
    """Describe how a process ended, in words after `it died: `.

    Args:
        pid: if it is known.
        told: what Ray says of it.
    """
    if "OUT_OF_MEMORY" in rays_message:  # as the worker's exit type
        return "killed by Ray, since its node was short of memory"
    status = None if pid is None else _status(pid)
    if status is not None:
        return describe_exit(os.waitstatus_to_exitcode(status))
    if match := re.search(r"receives a (SIG[A-Z]+)", rays_message):
        return f"killed by {match[1]}"
    if match := re.search(r"with an exit code (\d+)", rays_message):
        return f"exit code {match[1]}"
    return "killed, or crashed; with which signal or exit code is not known. See dmesg on its node: memory may be short"


def _status(pid: int) -> int | None:
    """Return the status as `os.wait` gives it; None if it cannot be known."""
    if pid not in _watched:
        return None
    end = time.monotonic() + REAPED_WITHIN_S
    while time.monotonic() < end:
        info = bytearray(64)
        struct.pack_into("=Q", info, 0, INFO_EXIT)
        try:
            fcntl.ioctl(_watched[pid], GET_INFO, info)
        except ProcessLookupError:  # it has ended, and its parent has not taken note yet
            pass
        except OSError:  # an older kernel
            return None
        if struct.unpack_from("=Q", info)[0] & INFO_EXIT:
            return int(struct.unpack_from("=i", info, 60)[0])
        time.sleep(0.02)
    return None
