"""vLLM's sampler for rows that each have a seed, and of each of whose tokens the log-prob is wanted.

On a CPU vLLM 0.32 asks the generator of each row for one number a token, and counts for each token how many others were
likelier, which nobody here asks for. This one takes many numbers of a row's generator at once and keeps what is left
for the row's next tokens, and does not count. Tokens and log-probs are the same bit for bit.

Patch: the `sampler` of the worker's model runner, on a CPU. It goes away when vLLM draws for all rows at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p
from vllm.v1.sample.sampler import Sampler

AHEAD = 32  # numbers of a row that are drawn at once
NUMBERS = 2**31  # vLLM draws below it


class RowSampler(Sampler):
    """Sampler of a model runner."""

    def __init__(self, runner: Any) -> None:
        mode = runner.model_config.logprobs_mode
        super().__init__(mode)
        self.topk_topp_sampler = RowDraws(mode, runner)

    @staticmethod
    def gather_logprobs(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> LogprobsTensors:
        """Return the log-probs of sampled tokens, [R, 1], with 0 for their ranks; likelier ones as vLLM does."""
        if num_logprobs:
            return Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)
        places = token_ids.unsqueeze(-1)
        return LogprobsTensors(places.to(torch.int32), logprobs.gather(-1, places), torch.zeros_like(token_ids))


class RowDraws(TopKTopPSampler):
    """Draws of tokens, by numbers that belong to a row alone.

    A row's numbers are kept beside its generator in the runner's state of the row, which lasts as long as the row.
    """

    def __init__(self, mode: Any, runner: Any) -> None:
        super().__init__(mode)
        self._runner = runner

    def forward_cpu(
        self, logits: Tensor, generators: dict[int, torch.Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return a token of each row, [R], and the log-probs that it was drawn from, [R, V]."""
        logits = apply_top_k_top_p(logits, k, p).float()
        log_probs = logits.log_softmax(dim=-1)
        return torch.ops._C.fused_gumbel_argmax(logits, self._numbers()), log_probs

    def _numbers(self) -> Tensor:
        states = self._runner.requests
        return torch.tensor([next_number(states[name]) for name in self._runner.input_batch.req_ids])


def next_number(state: Any) -> int:
    """Return the next number of a row; of one that takes the likeliest token, and has no generator, 0."""
    if state.generator is None:
        return 0
    ahead: list[int] = state.__dict__.setdefault("drawn_ahead", [])
    if not ahead:
        ahead += reversed(torch.randint(0, NUMBERS, (AHEAD,), generator=state.generator).tolist())
    return ahead.pop()
