"""What a rank runs: vLLM's steps and draws as ours, and as its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from hybridflow.batch import Ragged
from hybridflow.engines.sampling import Generated, Sampling
from hybridflow.engines.vllm import requests
from hybridflow.engines.vllm.engine import VllmEngine
from hybridflow.engines.vllm.requests import refuse_unknown
from tests.engines.vllm.prefix_rank_functions import engine


class Steps(NamedTuple):
    """Rows, and how they came about.

    Attributes:
        plans: of the scheduler.
        batches: tokens in each step of the model.
        resumed: how often a row went on that had lost its blocks of the cache to others.
    """

    rows: Generated
    plans: int
    batches: list[int]
    resumed: int


def counted(
    folder: Path, prompts: Ragged, sampling: Sampling, seeds: list[int], *, single: bool, blocks: int | None = None
) -> Steps:
    """Rows of one call, by several steps at once or by one after the other; with so many blocks of the cache alone."""
    made = engine(folder)
    core = made._llm.llm_engine.engine_core.engine_core
    schedule, pool = core.scheduler.schedule, core.scheduler.kv_cache_manager.block_pool
    model = core.model_executor.driver_worker.worker.model_runner.model
    plans: list[Any] = []
    batches: list[int] = []
    taken: list[Any] = []

    def planned(*args: Any) -> Any:
        if blocks is not None and not plans:
            taken.extend(pool.get_new_blocks(pool.get_num_free_blocks() - blocks))
        plans.append(schedule(*args))
        return plans[-1]

    def ran(_: Any, args: Any, inputs: dict[str, Any]) -> None:
        batches.append(len(inputs["input_ids"]))

    with (
        mock.patch.object(core.scheduler, "schedule", planned),
        mock.patch.object(made._steps, "_loop", None if single else made._steps._loop),
    ):
        hook = model.register_forward_pre_hook(ran, with_kwargs=True)
        rows = made.generate(prompts, sampling, seeds)
        hook.remove()
    pool.free_blocks(taken)
    resumed = sum(len(plan.scheduled_cached_reqs.resumed_req_ids) for plan in plans)
    return Steps(rows, len(plans), batches, resumed)


def session_plans(folder: Path, prompts: Ragged, sampling: Sampling) -> tuple[int, int]:
    """How many tokens each row of a session has after one call of `advance`, and after two."""
    from hybridflow.engines.generation_session import Request

    with engine(folder).session() as session:
        session.submit([Request(row, prompt, sampling, row) for row, prompt in enumerate(prompts)])
        session.advance()
        [first] = set(session.written().values())
        session.advance()
        [second] = set(session.written().values())
    return first, second


def refusals(parameters: list[dict[str, Any]]) -> list[str]:
    """What is said of rows with these parameters of vLLM, beside those that all have; "" of one that is sampled."""
    from vllm import SamplingParams

    said = []
    for own in parameters:
        try:
            refuse_unknown(SamplingParams(**{"max_tokens": 3, "seed": 7, "logprobs": 0, "flat_logprobs": True, **own}))
            said.append("")
        except ValueError as error:
            said.append(str(error))
    return said


def looks_of_a_call(folder: Path, prompts: Ragged) -> int:
    """How many rows' parameters a call that generates looks at."""
    with mock.patch.object(requests, "refuse_unknown", wraps=refuse_unknown) as looks:
        engine(folder).generate(prompts, Sampling(1.0, max_tokens=2), list(range(len(prompts))))
    return looks.call_count


@contextmanager
def vllms_sampler(made: VllmEngine) -> Iterator[None]:
    """Let rows be sampled as vLLM does it."""
    from vllm.v1.sample.sampler import Sampler

    def exchange(worker: Any, sampler: Any = None) -> Any:
        runner = worker.model_runner
        ours, runner.sampler = runner.sampler, sampler or Sampler(runner.model_config.logprobs_mode)
        return ours

    [ours] = made._llm.collective_rpc(exchange)
    try:
        yield
    finally:
        made._llm.collective_rpc(exchange, args=(ours,))


def sampled_twice(
    folder: Path, prompts: Ragged, sampling: Sampling, seeds: list[int]
) -> tuple[tuple[Generated, int], tuple[Generated, int]]:
    """Rows by our sampler and by vLLM's, and how often a generator was asked for numbers."""
    made = engine(folder)
    draw, draws = torch.randint, []

    def drawn(*args: Any, **options: Any) -> Any:
        draws.append(options.get("generator"))
        return draw(*args, **options)

    with mock.patch.object(torch, "randint", drawn):
        ours = made.generate(prompts, sampling, seeds)
        count = len(draws)
        with vllms_sampler(made):
            theirs = made.generate(prompts, sampling, seeds)
    return (ours, count), (theirs, len(draws) - count)
