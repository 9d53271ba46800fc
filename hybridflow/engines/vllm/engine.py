"""VllmEngine: one generation replica's part on this rank."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hybridflow.batch import Ragged
from hybridflow.config.schema import Rollout
from hybridflow.engines.vllm.groups import give_stage_inputs, strided_groups
from hybridflow.engines.vllm.sampling import Sampling
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.platform import platform

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in this process, beside Megatron
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # a slot's thread is bound by whoever started the process
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
}


class Generated(NamedTuple):
    """Responses to R prompts.

    Attributes:
        tokens: ragged int64.
        log_probs: ragged float32, natural logarithm, of each token under the distribution it was drawn from.
    """

    tokens: Ragged
    log_probs: Ragged


class VllmEngine:
    """vLLM in this process; its weights come only through `receive`.

    Args:
        folder: Hugging Face folder, for the configuration; no weight is read from it.
        stop_ids: token ids that end a response (the end is part of it).

    Attributes:
        version: of the weights it has; None before the first `receive`, and after one that did not finish.
    """

    def __init__(
        self, folder: str | Path, layout: Layout, rollout: Rollout, *, dtype: str, seed: int, stop_ids: Sequence[int]
    ) -> None:
        os.environ.update(ENVIRONMENT)
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from hybridflow.engines.vllm import receive

        receive.register()
        self.version: int | None = None
        self._stop_ids = list(stop_ids)
        tensor, pipeline = layout.generation_sizes
        with strided_groups(layout):
            self._llm = LLM(
                model=str(folder),
                load_format="dummy",
                dtype=dtype,
                seed=seed,
                skip_tokenizer_init=True,
                trust_remote_code=False,
                tensor_parallel_size=tensor,
                pipeline_parallel_size=pipeline,
                distributed_executor_backend="external_launcher",
                max_model_len=rollout.max_sequence_tokens,
                max_num_seqs=rollout.max_concurrent_rows,
                enforce_eager=rollout.enforce_eager,
                logprobs_mode="processed_logprobs",
                disable_log_stats=True,
                weight_transfer_config=WeightTransferConfig(backend=receive.NAME),
                **platform().vllm_options(
                    kv_cache_gib=rollout.kv_cache_gib, gpu_memory_fraction=rollout.gpu_memory_fraction
                ),
            )
        self._call("init_weight_transfer_engine", init_info={})
        self._call(give_stage_inputs)

    def receive(
        self,
        shards: Iterator[tuple[str, Tensor]],
        version: int,
        *,
        checksum: Callable[[Tensor], int] | None = None,
    ) -> dict[tuple[str, ...], int]:
        """Take this rank's generation shards and forget what was cached under the old weights; see `Receiver`."""
        self.version = None
        found: dict[tuple[str, ...], int] = {}
        self._call("start_weight_update")
        self._call("update_weights", update_info={"shards": shards, "checksums": found, "checksum": checksum})
        self._call("finish_weight_update")
        self._llm.reset_prefix_cache()
        self.version = version
        return found

    def generate(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Generated:
        """One response a prompt; all ranks of a replica call it with the same prompts.

        Args:
            seeds: one a row, of its random stream.

        Raises RuntimeError if the engine has no weights.
        """
        if self.version is None:
            raise RuntimeError("generation was asked for before a refit gave the engine its weights")
        if not len(prompts):
            return Generated(Ragged.of([], np.int64), Ragged.of([], np.float32))
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt.tolist()} for prompt in prompts],
            [self._parameters(sampling, seed) for seed in seeds],
            use_tqdm=False,
        )
        best = [output.outputs[0] for output in outputs]
        log_probs = [[next(iter(token.values())).logprob for token in row.logprobs] for row in best]
        return Generated(Ragged.of([row.token_ids for row in best], np.int64), Ragged.of(log_probs, np.float32))

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=seed,
            logprobs=0,
            detokenize=False,
            ignore_eos=True,
            stop_token_ids=self._stop_ids,
        )

    def _call(self, method: str | Callable[..., None], **arguments: Any) -> None:
        self._llm.collective_rpc(method, kwargs=arguments)
