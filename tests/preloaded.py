"""Import the engines once, in the process that the ranks of `tests.spmd` are forked from.

That takes seven seconds, and four more where a rank first builds vLLM. No thread is started here and no group made:
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

# What vLLM imports only as it is built, and the architecture of most tests.
from vllm.model_executor.models import qwen2  # noqa: F401
from vllm.v1.worker import cpu_worker  # noqa: F401

from hybridflow.engines.megatron import engine as megatron_engine  # noqa: F401
from hybridflow.engines.vllm import multi_step, shard_receiver  # noqa: F401

gc.freeze()  # forks need not look through a million objects, which they share, at each collection
