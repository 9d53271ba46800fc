"""The search path of the cluster's processes: the driver's own folders are in it, but last.

A module beside an experiment may have the name of one in the standard library, or of a package: Ray would search the
driver's working directory first, and so does what PYTHONPATH names.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.job_config import JobConfig

FOLDERS = "HYBRIDFLOW_SEARCH_LAST"
HERE = "HYBRIDFLOW_DRIVER_FOLDER"


PATH = "PYTHONPATH"


class NoFoldersOfTheDriver(JobConfig):
    """Job whose processes do not search the driver's folders first: Ray 2.60 adds them without a `working_dir`."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def environment() -> dict[str, str]:
    """Return the environment that `begin_process` reads."""
    return {FOLDERS: os.pathsep.join(own_folders()), HERE: os.getcwd()}


def own_folders() -> list[str]:
    """List where the driver finds modules that are not installed: plugins beside the user's experiment, and ours."""
    library = sysconfig.get_path("stdlib")
    zipped = os.path.join(os.path.dirname(library), f"python{sys.version_info.major}{sys.version_info.minor}.zip")
    folders = [os.getcwd(), *map(os.path.abspath, sys.path)]
    known = (library, zipped, os.path.join(library, "lib-dynload"))
    return [path for path in dict.fromkeys(folders) if path not in known and "site-packages" not in path]


def hides_library(folder: str) -> bool:
    """Tell whether a folder has a module, or a package, of the standard library's name."""
    there = Path(folder or ".")
    files = [*there.glob("*.py"), *(file.parent for file in there.glob("*/__init__.py"))]
    return any(file.stem in sys.stdlib_module_names for file in files)


@contextmanager
def standard_first() -> Iterator[None]:
    """Leave out of PYTHONPATH, in the block, folders that hide modules of the standard library.

    The processes that Ray starts would die of them, or wait for one that has, before `begin_process` could search these
    folders last; this process has its search path already.
    """
    before = os.environ.get(PATH)
    if before is None:
        yield
        return
    os.environ[PATH] = os.pathsep.join(folder for folder in before.split(os.pathsep) if not hides_library(folder))
    try:
        yield
    finally:
        os.environ[PATH] = before


@contextmanager
def process_setup() -> Iterator[Callable[[], None]]:
    """Yield what every process of the cluster runs first; in the block it can be sent to those that lack our package.

    A function goes by its name unless its module is registered so.
    """
    module: Any = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield begin_process
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def begin_process() -> None:
    """Search the driver's folders after all others; and be where the driver is, so that its relative paths hold."""
    import os
    import sys

    os.environ["PYTHONSAFEPATH"] = "1"  # of what this process starts too: vLLM asks of a model by `python -m`
    folders = os.environ["HYBRIDFLOW_SEARCH_LAST"].split(os.pathsep)
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    if os.path.isdir(os.environ["HYBRIDFLOW_DRIVER_FOLDER"]):
        os.chdir(os.environ["HYBRIDFLOW_DRIVER_FOLDER"])
