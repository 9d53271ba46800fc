"""hybridflow: reinforcement learning on language models as a hybrid of one controller and SPMD worker groups.

The public interface is what this module names; everything else may change between minor versions.
"""

from hybridflow import algorithms, dispatch, roles
from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.errors import HybridFlowError

__version__ = "0.1.0"

__all__ = ["Batch", "BatchRef", "HybridFlowError", "Ragged", "algorithms", "dispatch", "roles"]
