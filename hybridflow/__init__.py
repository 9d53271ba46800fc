"""hybridflow: reinforcement learning on language models as a hybrid of one controller and SPMD worker groups.

The public interface is what this module names; everything else may change between minor versions.

A name is imported when it is first asked for, since every process of a run, and every command, imports this module.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridflow import algorithms, dispatch, roles
    from hybridflow.batch import Batch, BatchRef, Ragged
    from hybridflow.errors import HybridFlowError

__version__ = "0.1.0"

__all__ = ["Batch", "BatchRef", "HybridFlowError", "Ragged", "algorithms", "dispatch", "roles"]

_CLASSES = {"Batch": "batch", "BatchRef": "batch", "HybridFlowError": "errors", "Ragged": "batch"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hybridflow' has no attribute {name!r}")
    module = import_module(f"hybridflow.{_CLASSES.get(name, name)}")
    return getattr(module, name) if name in _CLASSES else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
