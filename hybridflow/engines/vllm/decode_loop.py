"""Steps of vLLM's model runner in which each of its rows gets one more token.

Before each step the runner looks at what may have changed: rows that are new, have ended or were moved, prompts in
parts, blocks of the cache, drafts. Of a step that only goes on with the rows of the one before nothing of it has; the
tensors that the model reads are then those of the step before, with each place one further. On a CPU with a small model
the look takes longer than the model.

Patch: reads and writes the state of vLLM 0.32's model runner for a CPU. It goes away when the runner's own step is as
short.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata


class DecodeLoop:
    """Such steps of one runner, whose layers all have the same blocks of the cache (`shares_blocks`).

    Nothing that its rows ask for looks at their earlier tokens (`requests.refuse_unknown`).
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @staticmethod
    def shares_blocks(runner: Any) -> bool:
        """Tell whether all layers of a runner's model have the same blocks, as the cache has them."""
        groups = [group for groups in runner.attn_groups for group in groups]
        return len(groups) == 1 and groups[0].kernel_block_size is None

    @torch.inference_mode()
    def run(self, steps: int, ends: Sequence[Collection[int]]) -> list[Any]:
        """Sample a token of each row, again and again; return vLLM's SamplerOutputs, in the runner's order of rows.

        Args:
            steps: at most; the rows' blocks have room for as many.
            ends: tokens of each row that end it. A step in which one is sampled is the last.
        """
        runner = self._runner
        batch = runner.input_batch
        common, ids = self._inputs()
        assert common.positions is not None
        [[group]] = runner.attn_groups
        metadata: dict[str, Any] = {}
        slots = dict.fromkeys(group.layer_names, common.slot_mapping)
        outputs: list[Any] = []
        with set_forward_context(metadata, runner.vllm_config, num_tokens=len(ids), slot_mapping=slots):
            while len(outputs) < steps:
                metadata.update(dict.fromkeys(group.layer_names, group.build_metadata(common, 0)))
                hidden = runner.model(
                    input_ids=ids, positions=common.positions, intermediate_tensors=None, inputs_embeds=None
                )
                logits = runner.model.compute_logits(hidden)
                outputs.append(runner.sampler(logits=logits, sampling_metadata=batch.sampling_metadata))
                ids = outputs[-1].sampled_token_ids[:, 0]
                if any(token in of_row for token, of_row in zip(ids.tolist(), ends, strict=True)):
                    break
                for places in (common.positions, common.seq_lens, common.slot_mapping):
                    places += 1  # the next token lies in the same block
                common.max_seq_len += 1
        self._note(torch.cat([output.sampled_token_ids for output in outputs], dim=1))
        return outputs

    def _inputs(self) -> tuple[CommonAttentionMetadata, torch.Tensor]:
        """Return what the attention is told of the rows' next step, and their last tokens, [R] int32."""
        batch = self._runner.input_batch
        rows = batch.num_reqs
        lengths = batch.num_tokens_no_spec[:rows].copy()
        last = torch.from_numpy(lengths.astype(np.int64) - 1)
        table = batch.block_table[0]
        blocks = table.get_device_tensor(rows)
        slots = blocks.gather(1, (last // table.block_size)[:, None])[:, 0] * table.block_size + last % table.block_size
        starts = torch.arange(rows + 1, dtype=torch.int32)
        common = CommonAttentionMetadata(
            query_start_loc=starts,
            query_start_loc_cpu=starts,
            seq_lens=torch.from_numpy(lengths.astype(np.int32)),
            num_reqs=rows,
            num_actual_tokens=rows,
            max_query_len=1,
            max_seq_len=int(lengths.max()),
            block_table_tensor=blocks,
            slot_mapping=slots,
            positions=last,
        )
        return common, torch.from_numpy(batch.token_ids_cpu[np.arange(rows), lengths - 1])

    def _note(self, tokens: torch.Tensor) -> None:
        """Write the rows' new tokens, [R, N], to where the runner's next step looks for them."""
        batch, requests = self._runner.input_batch, self._runner.requests
        for row, new in enumerate(tokens.tolist()):
            start = batch.num_tokens_no_spec[row]
            stop = start + len(new)
            batch.token_ids_cpu[row, start:stop] = new
            batch.is_token_ids[row, start:stop] = True
            batch.num_tokens_no_spec[row] = stop
            requests[batch.req_ids[row]].output_token_ids.extend(new)
