"""MegatronEngine: one role's model on this rank. Scores rows and takes optimizer steps on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.config.schema import OptimizerConfig, Recompute
from hybridflow.engines.base import TrainingEngine
from hybridflow.engines.megatron import cpu_shim, engine_checkpoint, rng_states
from hybridflow.engines.megatron.gpt_model import build_model, output_weight, transformer_config
from hybridflow.engines.megatron.local_weights import LocalWeights
from hybridflow.engines.megatron.micro_batches import PackedMicroBatch, micro_batches
from hybridflow.engines.megatron.optimizer import MegatronOptimizer
from hybridflow.engines.megatron.process_groups import group_collection
from hybridflow.engines.megatron.sharding import MegatronSharding
from hybridflow.engines.megatron.vocab_parallel import Vocabulary, token_statistics
from hybridflow.engines.outputs import LossShare, StepResult, TokenOutputs
from hybridflow.models import Head, Weight, read_shape
from hybridflow.parallel.offloaded import Offload, without
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups
from hybridflow.tasks import vocabulary as tokens


class MegatronEngine(TrainingEngine):
    """Model on a role's groups.

    Args:
        folder: Hugging Face folder of the weights to start from.
        budget: tokens of a micro-batch.
        optimizer: None for a model that only scores.
        total_steps: optimizer steps that are planned; the learning-rate schedule spans them.
        sequence: sequence parallelism between the tensor ranks.
        recompute: which activations are computed again in the backward pass.

    Raises ValueError for a model that cannot be run or sharded so, or if a reward model is only to score, but the
    folder has none.
    """

    def __init__(
        self,
        folder: str | Path,
        groups: Groups,
        *,
        dtype: torch.dtype,
        budget: int,
        head: Head = Head.lm,
        optimizer: OptimizerConfig | None = None,
        total_steps: int = 1,
        seed: int = 1,
        sequence: bool = False,
        recompute: Recompute = Recompute.none,
    ) -> None:
        if platform().shimmed:
            cpu_shim.apply()
        rng_states.seed(seed, groups.at.tp)
        self.folder = Path(folder)
        self.groups = groups
        self.head = head
        self.budget = budget
        self.shape = read_shape(folder)
        self.sharding = MegatronSharding(self.shape, groups.layout.tensor, groups.layout.pipeline, head)
        self._tokens = tokens.Vocabulary(str(folder), self.shape.vocab)
        if head is Head.reward and optimizer is None and self.shape.head is not Head.reward:
            raise ValueError(f"{folder} is no reward model: it has no score head; `hybridflow train-reward` trains one")
        self.config = transformer_config(self.shape, groups, dtype, sequence=sequence, recompute=recompute)
        self.collection = group_collection(groups)
        self.model = build_model(self.sharding, groups, self.collection, self.config)
        self.weights = LocalWeights(self.model, self.sharding, groups)
        self.weights.load(folder)
        self.optimizer: MegatronOptimizer | None = None
        if optimizer is not None:
            self.optimizer = MegatronOptimizer(self.model, self.config, optimizer, self.collection, total_steps)
        self._offloaded: dict[str, list[Offload]] = {}
        self._randomness = rng_states.EngineRandomness()

    def offload(self, *, weights: bool, optimizer: bool) -> None:
        if optimizer and self.optimizer and "optimizer" not in self._offloaded:
            own = without(self.optimizer.state(), self._weights())
            gone = platform().offload(self.optimizer.gradients(), keep=False)
            self._offloaded["optimizer"] = [platform().offload(own), gone]
        if weights and "weights" not in self._offloaded:
            self._offloaded["weights"] = [platform().offload(self._weights())]

    def onload(self, *, optimizer: bool) -> None:
        for name in ("weights", "optimizer") if optimizer else ("weights",):
            for offloaded in self._offloaded.pop(name, []):
                offloaded.restore()

    def score(self, batch: Batch, *, temperature: np.ndarray | None = None) -> dict[str, Ragged] | None:
        micros = self.pack(batch)
        outputs = self._look(micros, temperature)
        if not self.groups.last_stage:
            return None
        learned = LearnedTokens.of(batch)
        names = ("values",) if self.head is Head.value else ("log_probs", "entropy")
        return {name: _in_order(learned, micros, [getattr(out, name) for out in outputs]) for name in names}

    def score_rows(self, batch: Batch) -> np.ndarray | None:
        micros = self.pack(batch)
        all_outputs = self._look(micros)
        if not self.groups.last_stage:
            return None
        scores = np.zeros(len(batch), dtype=np.float32)
        for micro, outputs in zip(micros, all_outputs, strict=True):
            scores[micro.rows] = outputs.scores.cpu().numpy()
        return scores

    def train(
        self,
        batch: Batch,
        loss: LossShare,
        *,
        rows_per_unit: int = 1,
        temperature: np.ndarray | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> StepResult:
        assert self.optimizer is not None, "this engine was made without an optimizer"
        self.optimizer.clear()
        micros = self.pack(batch, rows_per_unit)
        if self.optimizer.overlaps:
            self.optimizer.overlap(self.global_sums(float(not micros)) == [0.0])
        if micros:
            self.run(micros, loss, train=True, temperature=temperature)
        else:
            self.optimizer.finish_empty()
        if before_step is not None:
            before_step()
        return self.optimizer.step()

    def shard(self, weight: Weight) -> Tensor:
        return self.weights.shard(weight)

    @property
    def weight_bytes(self) -> int:
        return self.weights.nbytes

    def export(self, folder: str | Path) -> None:
        self.weights.export(folder, self.folder)

    def save(self, folder: Path, extra: Mapping[str, Any]) -> None:
        assert self.optimizer is not None, "an engine that does not learn has nothing to save"
        engine_checkpoint.save(self.weights, self.optimizer, self._randomness, folder, extra)

    def load(self, folder: Path) -> dict[str, Any]:
        assert self.optimizer is not None, "an engine that does not learn has nothing to load"
        return engine_checkpoint.load(self.weights, self.optimizer, self._randomness, folder)

    def pack(self, batch: Batch, rows_per_unit: int = 1) -> list[PackedMicroBatch]:
        """Pack the rows into micro-batches within the budget; see `micro_batches`.

        Raises ValueError for an id that is no token of the model: what the embedding is padded with is none either.
        """
        if not len(batch):
            return []
        for name in ("prompt_ids", "response_ids"):
            self._tokens.refuse_strangers(name, batch.ragged(name).values)
        pad_to_multiple_of = self.groups.layout.tensor if self.config.sequence_parallel else 1
        return micro_batches(
            batch, self.budget, platform().device, rows_per_unit=rows_per_unit, pad_to_multiple_of=pad_to_multiple_of
        )

    def _look(self, micros: list[PackedMicroBatch], temperature: np.ndarray | None = None) -> list[TokenOutputs]:
        """Do as `run`, without gradients."""
        with torch.no_grad():
            return self.run(micros, lambda outputs, _: outputs.values.sum() * 0, train=False, temperature=temperature)

    def run(
        self, micros: list[PackedMicroBatch], loss: LossShare, *, train: bool, temperature: np.ndarray | None = None
    ) -> list[TokenOutputs]:
        """Run Megatron's schedule over the micro-batches; return the outputs of each on the last stage."""
        if not micros:
            return []
        model = self.optimizer.model if train and self.optimizer else self.model
        model.train(train)
        pipeline = self.groups.layout.pipeline
        schedule = get_forward_backward_func(pp_size=pipeline, vp_size=None)
        with self._randomness.entered():
            outputs: list[TokenOutputs] = schedule(
                forward_step_func=self._forward_step(loss, temperature),
                data_iterator=iter(micros),
                model=[model],
                num_microbatches=len(micros),
                seq_length=1,
                micro_batch_size=1,
                forward_only=not train,
                pg_collection=self.collection,
                p2p_communicator=P2PCommunicator(self.groups.pp, self.config) if pipeline > 1 else None,
            )
        self.model.set_input_tensor(None)  # it would keep what it received last from an earlier stage, and its gradient
        return outputs

    def _forward_step(
        self, loss: LossShare, temperature: np.ndarray | None
    ) -> Callable[[Iterator[PackedMicroBatch], Any], Any]:
        def forward(micros: Iterator[PackedMicroBatch], model: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
            micro = next(micros)

            def finish(output: Tensor) -> tuple[Tensor, Tensor, TokenOutputs]:
                outputs = self._outputs(output, micro, temperature)
                share = loss(outputs, micro)
                return share, torch.zeros((), dtype=torch.int), TokenOutputs(*(x.detach() for x in outputs))

            return model(micro.tokens, micro.positions, None, packed_seq_params=micro.packed), finish

        return forward

    def _weights(self) -> list[Tensor]:
        return [param.data for param in self.model.parameters()]

    def _outputs(self, output: Tensor, micro: PackedMicroBatch, temperature: np.ndarray | None) -> TokenOutputs:
        """Turn the last layer's [1, T, ·] into the outputs for the response tokens or the rows."""
        none = output.new_zeros(0, dtype=torch.float32)
        if self.head is Head.reward:
            return TokenOutputs(none, none, none, output[0, micro.last_positions, 0].float())
        # Samples of a prompt read its last token together; indexing would add up their gradients as threads come.
        at_tokens = output[0].index_select(0, micro.logit_positions)
        if self.head is Head.value:
            return TokenOutputs(none, none, at_tokens[:, 0].float(), none)
        of_token: Tensor | None = None
        if temperature is not None:
            of_row = torch.tensor(temperature[micro.rows], dtype=torch.float32)
            of_token = torch.repeat_interleave(of_row, micro.lengths.cpu()).to(at_tokens.device)
        vocabulary = Vocabulary(self.shape.vocab, self.groups.tp, of_token)
        statistics = token_statistics(at_tokens, output_weight(self.model), micro.targets, vocabulary)
        return TokenOutputs(*statistics, none, none)


def _in_order(learned: LearnedTokens, micros: list[PackedMicroBatch], parts: list[Tensor]) -> Ragged:
    """Values of the micro-batches' rows, back in the order of the rows; 0 at tokens that are not learned from."""
    if not micros:
        return Ragged(np.zeros(0, dtype=np.float32), learned.responses.offsets)
    rows = np.concatenate([m.rows for m in micros])
    packed = learned.select(rows).spread(torch.cat(parts).cpu().numpy())
    return packed.select(np.argsort(rows))
