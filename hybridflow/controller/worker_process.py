"""Program of the processes that Ray starts in a cluster of our own: it prepares one, and then is Ray's own program.

It is given what that is given. A runtime environment could prepare them too, but Ray would then start an agent that
makes it, and in each process itself twice: two seconds of computing, and as long before the first rank.
"""

import sys

del sys.path[0]  # the folder of this file, whose modules nobody is to find by their bare names

import os  # noqa: E402
import runpy  # noqa: E402
from importlib.util import find_spec  # noqa: E402


def main() -> None:
    """Prepare this process and run Ray's program in it."""
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "search_path.py")
    runpy.run_path(own)["begin_process"]()
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    sys.argv[0] = os.path.join(os.path.dirname(spec.origin), "_private", "workers", "default_worker.py")
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
