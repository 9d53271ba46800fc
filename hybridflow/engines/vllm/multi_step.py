"""Several steps of vLLM's model for one of its engine.

After each token vLLM's engine plans the next step, and hands every row's token through its scheduler and its output
processor; with a small model that takes longer than the model. As long as no row ends, joins or needs another block of
the cache, the next plan is known: the same rows, a token each. The model then goes on at once, and scheduler and output
processor get the tokens together. Each step has the rows that it would have had by itself, so tokens and log-probs are
the same bit for bit.

Patch: `step_fn` of the EngineCore in this process (vLLM 0.32). It goes away when vLLM plans several steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hybridflow.engines.vllm.decode_loop import DecodeLoop
from hybridflow.engines.vllm.row_sampler import RowSampler
from hybridflow.parallel.platform import platform


class MultiStep:
    """Step of an EngineCore, taken in its place.

    Args:
        core: of an engine in this process.

    Attributes:
        together: whether an engine step may be several of the model, on a CPU; else it is one, as vLLM takes it.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._single = core.step_fn
        self.together = False
        self._loop: DecodeLoop | None = None
        if not platform().accelerated:
            runner = core.model_executor.driver_worker.worker.model_runner
            runner.sampler = RowSampler(runner)
            stages = core.vllm_config.parallel_config.pipeline_parallel_size
            # Stages wait for the scheduler to send them each token.
            if stages == 1 and DecodeLoop.shares_blocks(runner):
                self._loop = DecodeLoop(runner)
                core.step_fn = self

    def __call__(self) -> tuple[dict[int, Any], bool]:
        """Let the rows go on; return vLLM's outputs by client, and whether anything was computed."""
        scheduler, executor = self._core.scheduler, self._core.model_executor
        if not (self.together and self._loop and scheduler.has_requests()):
            stepped: tuple[dict[int, Any], bool] = self._single()
            return stepped
        plan = scheduler.schedule()
        output = executor.execute_model(plan)
        if output is None:
            output = executor.sample_tokens(None)
        rows = [scheduler.requests[name] for name in output.req_ids]
        ends = [row.sampling_params.stop_token_ids for row in rows]
        steps = self._steps_until_an_event(rows) - 1
        if steps and not any(token in of_row for [token], of_row in zip(output.sampled_token_ids, ends, strict=True)):
            more = self._loop.run(steps, ends)
            output = joined(output, more)
            for row in rows:
                row.num_computed_tokens += len(more)
        return scheduler.update_from_output(plan, output), bool(rows)

    def _steps_until_an_event(self, rows: Sequence[Any]) -> int:
        """Return the steps, the planned one too, in which all rows get a token and none can join them."""
        scheduler = self._core.scheduler
        running, waiting = scheduler.get_request_counts()
        if len(rows) < running or (waiting and running < scheduler.max_num_running_reqs):
            return 1
        steps = scheduler.max_model_len
        for row in rows:
            steps = min(steps, self._steps_of(row))
            if steps <= 1:  # of many rows one often needs a block: the others need not be asked
                break
        return steps

    def _steps_of(self, row: Any) -> int:
        """Return the steps until a row has all its tokens or needs a block. If its text may end it, each is looked at.

        Of a row whose step was planned vLLM counts the tokens as computed already, and has blocks for just these.
        """
        if row.sampling_params.stop or row.is_prefill_chunk:
            return 1
        scheduler = self._core.scheduler
        return min(
            row.max_tokens - row.num_output_tokens,
            scheduler.max_model_len - row.num_tokens,
            -row.num_computed_tokens % scheduler.block_size + 1,
        )


def joined(first: Any, more: Sequence[Any]) -> Any:
    """Return a ModelRunnerOutput with the tokens of the SamplerOutputs too, of the same rows."""
    from vllm.v1.outputs import LogprobsLists

    steps = 1 + len(more)
    tokens = np.concatenate([np.array(first.sampled_token_ids), *(step.sampled_token_ids.numpy() for step in more)], 1)
    parts = [first.logprobs, *(step.logprobs_tensors.tolists() for step in more)]
    columns = zip(*(part[:3] for part in parts), strict=True)  # ids, log-probs and ranks of each step: [R, ...]
    of_rows = [np.stack(column, axis=1).reshape(-1, *column[0].shape[1:]) for column in columns]
    starts = list(range(0, len(tokens) * steps, steps))
    return replace(first, sampled_token_ids=tokens.tolist(), logprobs=LogprobsLists(*of_rows, starts))
