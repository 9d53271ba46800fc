"""Run a program inside of the sandbox: `python sandbox_launcher.py MODE CPU_S MEMORY PROCESSES FILE`. Standard library.

In mode `stdin` the program has this process's standard input. In mode `asserts` that has JSON: a test to be run where
the program's names are known, and a mark that is written after it. A program that ends early has no mark.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from types import ModuleType

PROGRAM = "/program.py"


def main() -> None:
    """Run the program under the limits of the command line."""
    mode, *limits = sys.argv[1:]
    names = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE)
    for name, limit in zip(names, map(int, limits), strict=True):
        resource.setrlimit(name, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(PROGRAM, encoding="utf-8") as file:
        source = file.read()
    told = json.load(sys.stdin) if mode == "asserts" else None
    sys.argv[:] = [PROGRAM]
    module = ModuleType("program" if told else "__main__")  # what stands under `if __name__ == "__main__"` reads input
    sys.modules[module.__name__] = module
    exec(compile(source, PROGRAM, "exec"), vars(module))
    if told:
        exec(compile(told["test"], "/test.py", "exec"), vars(module))
        os.write(1, told["mark"].encode())


if __name__ == "__main__":
    main()
