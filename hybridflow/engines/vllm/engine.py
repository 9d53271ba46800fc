"""VllmEngine: one generation replica's part on this rank."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hybridflow.batch import Ragged
from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.base import GenerationEngine
from hybridflow.engines.sampling import FinishedRow, Sampling
from hybridflow.engines.vllm.backend import VllmBackend
from hybridflow.engines.vllm.hardware_options import fall_asleep, hardware_options, wake
from hybridflow.engines.vllm.model_inspection import inspected_here
from hybridflow.engines.vllm.process_groups import give_stage_inputs, strided_groups
from hybridflow.engines.vllm.requests import check_lengths, check_temperature, parameters
from hybridflow.engines.vllm.session import VllmSession
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.models import read_shape
from hybridflow.observe import logs
from hybridflow.parallel.host_address import listen_at
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.quick_imports import import_transformers
from hybridflow.tasks.vocabulary import Vocabulary

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in this process, beside Megatron
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # a slot's thread is bound by whoever started the process
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # Ways to reduce over GPUs that their processes must see all of, or that add in no fixed order; NCCL is left.
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the one that the tests run: a CPU has no other
}


class VllmEngine(GenerationEngine):
    """vLLM in this process.

    Asleep, on a GPU it has neither weights nor a KV cache. `update_weights` brings back the memory of the weights, and
    only then `stream` that of the KV cache, so that while weights are on their way there is none.

    Args:
        folder: Hugging Face folder, for the configuration and the tokenizer; no weight is read from it.
        stop_ids: token ids that end a response (the end is part of it).

    Raises ValueError, before anything of vLLM is started, for a model that it cannot run or shard so.
    """

    def __init__(
        self,
        folder: str | Path,
        layout: Layout,
        rollout: RolloutConfig,
        *,
        dtype: str,
        seed: int,
        stop_ids: Sequence[int],
    ) -> None:
        shape = read_shape(folder)
        sharding = VllmBackend.sharding(shape, layout)
        VllmBackend.refuse(shape, platform().name)
        os.environ.update(ENVIRONMENT)
        listen_at("VLLM_HOST_IP")
        with logs.timed(log, "import of vLLM"):
            import_transformers()
            from vllm import LLM
            from vllm.config import WeightTransferConfig

            from hybridflow.engines.vllm import shard_receiver, small_products
            from hybridflow.engines.vllm.multi_step import MultiStep

        shard_receiver.register()
        small_products.leave_to_torch()
        self.version: int | None = None
        self._holds = False
        self._vocabulary = Vocabulary(str(folder), shape.vocab)
        self._stop_ids = [end for end in stop_ids if end < self._vocabulary.size]
        self._limit = rollout.max_sequence_tokens
        if rollout.enforce_eager:
            platform().compile_nothing()
        gc.collect()
        gc.freeze()  # vLLM collects garbage five times as it starts, which would look through every module each time
        with strided_groups(layout), inspected_here(), logs.timed(log, "start of vLLM"):
            self._llm = LLM(
                model=str(folder),
                load_format="dummy",
                dtype=dtype,
                seed=seed,
                trust_remote_code=False,
                tensor_parallel_size=sharding.tensor,
                pipeline_parallel_size=sharding.pipeline,
                distributed_executor_backend="external_launcher",
                max_model_len=rollout.max_sequence_tokens,
                max_num_seqs=rollout.max_concurrent_rows,
                enforce_eager=rollout.enforce_eager,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                async_scheduling=False,  # as on a CPU, so as it is tested
                disable_log_stats=True,
                weight_transfer_config=WeightTransferConfig(backend=shard_receiver.NAME),
                **hardware_options(rollout, sharding.tensor * sharding.pipeline),
            )
        self._call("init_weight_transfer_engine", init_info={})
        self._call(give_stage_inputs)
        self._steps = MultiStep(self._llm.llm_engine.engine_core.engine_core)
        self.sleep()

    def update_weights(
        self, shards: Iterator[tuple[str, Tensor]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        """Write each shard to where it belongs. No call sees what caches have of the old ones."""
        if not self._holds:
            self._check_idle("new weights were given")
        self.version = None
        wake(self._llm, "weights")
        self._call("start_weight_update")
        self._call("update_weights", update_info={"shards": shards, "readings": readings, "version": version})
        self._call("finish_weight_update")
        self.version = version
        if self._holds:  # rows under way go on, also those that were before it slept
            wake(self._llm, "kv_cache")

    @cached_property
    def weight_bytes(self) -> int:
        """Counted once, after an update."""
        from hybridflow.engines.vllm.shard_receiver import weight_bytes

        [size] = self._llm.apply_model(weight_bytes)
        return int(size)

    def sleep(self) -> None:
        if not self._holds:
            self._check_idle("sleep was asked for")
        if fall_asleep(self._llm):
            self.version = None

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        """Compute a prefix that rows of this call share once; nothing is left of earlier calls."""
        self._refuse_unready()
        wanted = self._wanted(prompts, sampling, seeds)
        return self._run(prompts, wanted)

    def session(self) -> VllmSession:
        self._refuse_unready()
        self._begin()
        return self._session(together=False)

    def _session(self, *, together: bool) -> VllmSession:
        """Return a session that goes on by a token, or by as many `together` as nothing happens to its rows."""
        self._steps.together = together
        return VllmSession(self._llm.llm_engine, self._stop_ids, self._wanted, self._held)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Take new weights while rows are under way, between two tokens of theirs."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False

    def _run(self, prompts: Ragged, wanted: list[Any]) -> Iterator[list[FinishedRow]]:
        self._begin()
        session = self._session(together=True)
        with session:
            session.add(enumerate(prompts), wanted)
            while session.pending:
                if rows := session.advance():
                    yield rows

    def _refuse_unready(self) -> None:
        if self.version is None:
            raise RuntimeError("generation was asked for before a refit gave the engine its weights")

    def _wanted(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> list[Any]:
        """Return vLLM's parameters of rows. Raises ValueError as `stream`."""
        check_temperature(sampling.temperature)
        check_lengths(prompts, sampling.max_tokens, self._limit)
        self._vocabulary.refuse_strangers("prompt_ids", prompts.values)
        self._vocabulary.refuse_strangers("stop_token_ids", np.array(sampling.stop_token_ids, dtype=np.int64))
        limit = sampling.vocabulary or self._vocabulary.size
        allowed = list(range(limit)) if limit < self._vocabulary.size else None
        return parameters(sampling, seeds, self._stop_ids, allowed)

    def _begin(self) -> None:
        """Make room for rows, with nothing left of earlier ones."""
        self._check_idle("generation was asked for")
        wake(self._llm, "kv_cache")
        self._forget_prefixes()

    def _forget_prefixes(self) -> None:
        """Drop keys and values of older weights: they would else serve the new ones, and say nothing."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError(
                "vLLM did not empty its prefix cache, because blocks of it are in use though no row is under way; "
                "what it would generate may be of older weights, so the engine must be made anew"
            )

    def _check_idle(self, what: str) -> None:
        if self._llm.llm_engine.has_unfinished_requests():
            raise RuntimeError(f"{what} while rows of a stream are under way; read it to its end, or close it, first")

    def _call(self, method: str | Callable[..., None], **arguments: Any) -> None:
        self._llm.collective_rpc(method, kwargs=arguments)
