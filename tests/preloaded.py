"""Import the engines once, in the process that the ranks of `tests.spmd` are forked from.

That takes seven seconds, and three more where a rank first asks for vLLM. No thread is started here and no group made:
what belongs to one rank is set after the fork.
"""

from __future__ import annotations

import gc
import os

from hybridflow.parallel import host_address

os.environ |= {"OMP_NUM_THREADS": "1", **host_address.ONE_MACHINE}

from hybridflow.engines.vllm import engine as vllm_engine

os.environ |= vllm_engine.ENVIRONMENT

import transformers  # noqa: F401
from vllm import LLM  # noqa: F401

from hybridflow.engines.megatron import engine as megatron_engine  # noqa: F401

gc.freeze()  # forks need not look through a million objects, which they share, at each collection
