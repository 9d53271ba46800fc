"""VllmEngine: one generation replica's part on this rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hybridflow.batch import Ragged
from hybridflow.config.schema import RolloutConfig
from hybridflow.engines.vllm.model_limits import refuse_head_dim
from hybridflow.engines.vllm.process_groups import give_stage_inputs, strided_groups
from hybridflow.engines.vllm.requests import FinishedRow, Generated, check_lengths, finished_row, parameters
from hybridflow.engines.vllm.sampling_params import Sampling
from hybridflow.models import read_shape
from hybridflow.models.weight_table import refuse_generation_cut
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform
from hybridflow.tasks.vocabulary import Vocabulary

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
HOST = "127.0.0.1"  # where vLLM listens if nobody has said where this machine can be reached


class VllmEngine:
    """vLLM in this process; its weights come only through `receive`.

    It sleeps when it is made and after `sleep`: on a GPU it then has neither weights nor a KV cache. `receive` brings
    back the memory of the weights, and only then `generate` or `stream` that of the KV cache, so that while weights are
    on their way there is none.

    Args:
        folder: Hugging Face folder, for the configuration and the tokenizer; no weight is read from it.
        stop_ids: token ids that end a response (the end is part of it).

    Attributes:
        version: of the weights it has; None before the first `receive`, after one that did not finish, and after a
            sleep in which they were lost.

    Raises ValueError, before anything of vLLM is started, for a model that it cannot run or cut so.
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
        shape, (tensor, pipeline) = read_shape(folder), layout.generation_sizes
        refuse_generation_cut(shape, tensor, pipeline)
        refuse_head_dim(shape.head_dim, platform().name)
        os.environ.update(ENVIRONMENT)
        os.environ.setdefault("VLLM_HOST_IP", HOST)
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from hybridflow.engines.vllm import shard_receiver

        shard_receiver.register()
        self.version: int | None = None
        self._vocabulary = Vocabulary(str(folder), shape.vocab)
        self._stop_ids = [end for end in stop_ids if end < self._vocabulary.size]
        self._limit = rollout.max_sequence_tokens
        if rollout.enforce_eager:
            platform().compile_nothing()
        with strided_groups(layout):
            self._llm = LLM(
                model=str(folder),
                load_format="dummy",
                dtype=dtype,
                seed=seed,
                trust_remote_code=False,
                tensor_parallel_size=tensor,
                pipeline_parallel_size=pipeline,
                distributed_executor_backend="external_launcher",
                max_model_len=rollout.max_sequence_tokens,
                max_num_seqs=rollout.max_concurrent_rows,
                enforce_eager=rollout.enforce_eager,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                async_scheduling=False,  # as on a CPU, so as it is tested
                disable_log_stats=True,
                weight_transfer_config=WeightTransferConfig(backend=shard_receiver.NAME),
                **platform().vllm_options(
                    kv_cache_gib=rollout.kv_cache_gib, gpu_memory_fraction=rollout.gpu_memory_fraction
                ),
            )
        self._call("init_weight_transfer_engine", init_info={})
        self._call(give_stage_inputs)
        self.sleep()

    def receive(
        self,
        shards: Iterator[tuple[str, Tensor]],
        version: int,
        *,
        checksum: Callable[[Tensor], int] | None = None,
    ) -> dict[tuple[str, ...], int]:
        """Take this rank's generation shards; see `Receiver`. No call sees what caches have of the old ones."""
        self._check_idle("new weights were given")
        self.version = None
        platform().wake_vllm(self._llm, "weights")
        found: dict[tuple[str, ...], int] = {}
        self._call("start_weight_update")
        self._call("update_weights", update_info={"shards": shards, "checksums": found, "checksum": checksum})
        self._call("finish_weight_update")
        self.version = version
        return found

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of this rank's weights while it is awake, as loaded; counted once, after a `receive`."""
        from hybridflow.engines.vllm.shard_receiver import weight_bytes

        [found] = self._llm.apply_model(weight_bytes)
        return int(found)

    def sleep(self) -> None:
        """Leave the device's memory to others until the next `receive`."""
        self._check_idle("sleep was asked for")
        if platform().sleep_vllm(self._llm):
            self.version = None

    def generate(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Generated:
        """Generate one response a prompt, in the order of the prompts; see `stream`."""
        return Generated.of(chain.from_iterable(self.stream(prompts, sampling, seeds)))

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        """Yield one response a prompt, as they finish, some together; all ranks of a replica pass the same prompts.

        They must also take equally much of it: whoever closes it early ends what is under way. A prefix that rows of
        this call share is computed once, and nothing is left of earlier calls: what came before a call must not show in
        its results, not even in their last bits.

        Args:
            seeds: one a row, of its random stream.

        Raises RuntimeError if the engine has no weights, ValueError if a prompt leaves no room for its response or has
        an id that is no token of the model, and, at the first row, RuntimeError if another stream is under way.
        """
        if self.version is None:
            raise RuntimeError("generation was asked for before a refit gave the engine its weights")
        check_lengths(prompts, sampling.max_tokens, self._limit)
        self._vocabulary.refuse_strangers("prompt_ids", prompts.values)
        self._vocabulary.refuse_strangers("stop_token_ids", np.array(sampling.stop_token_ids, dtype=np.int64))
        limit = sampling.vocabulary or self._vocabulary.size
        allowed = list(range(limit)) if limit < self._vocabulary.size else None
        return self._run(prompts, [parameters(sampling, seed, self._stop_ids, allowed) for seed in seeds])

    def _run(self, prompts: Ragged, wanted: list[Any]) -> Iterator[list[FinishedRow]]:
        from vllm.inputs import tokens_input

        self._check_idle("generation was asked for")
        platform().wake_vllm(self._llm, "kv_cache")
        self._forget_prefixes()
        engine, names = self._llm.llm_engine, []
        try:
            for row, (prompt, one) in enumerate(zip(prompts, wanted, strict=True)):
                names.append(engine.add_request(str(row), tokens_input(prompt.tolist()), one))
            while engine.has_unfinished_requests():
                if rows := [finished_row(one, self._stop_ids) for one in engine.step()]:
                    yield rows
        finally:
            engine.abort_request(names, internal=True)

    def _forget_prefixes(self) -> None:
        """Keys and values of older weights would else serve the new ones, and say nothing."""
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
