"""Program that runs a Ray agent, a Python file with its arguments, and ends with the raylet that has started it.

Ray's own way: an agent looks every few seconds whether its raylet lives, and then tries for a minute to tell that to a
GCS which has died with it.
"""

import sys

del sys.path[0]  # the folder of this file, whose modules are none of the agent's

import ctypes  # noqa: E402
import os  # noqa: E402
import runpy  # noqa: E402
import signal  # noqa: E402

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the file that the first argument names."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["RAY_RAYLET_PID"]):  # it ended before that
        os._exit(1)
    del sys.argv[0]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
