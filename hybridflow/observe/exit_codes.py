"""Exit codes of processes in words."""

from __future__ import annotations

import signal


def describe_exit(code: int) -> str:
    """Describe an exit code as `subprocess` has it: below 0 it is the signal that killed the process."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    hint = " (by the kernel, if memory ran out: see dmesg on its node)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"
