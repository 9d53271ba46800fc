"""Base of workers with a model in a training engine: building it, its dtype, and columns as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.config.schema import OptimizerConfig, TrainedRoleConfig
from hybridflow.dispatch.known_columns import OLD_LOG_PROBS
from hybridflow.engines.base import TrainingEngine, training_engines
from hybridflow.engines.outputs import LossShare, MicroBatch, TokenOutputs
from hybridflow.losses.aggregations import aggregations, totals
from hybridflow.losses.loss import Loss, LossInputs, Surroundings, losses
from hybridflow.losses.options import with_options
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.models import Head
from hybridflow.models.model_flops import training_flops
from hybridflow.observe.disk_errors import DiskError, writing
from hybridflow.parallel.platform import platform
from hybridflow.parallel.process_groups import Groups, make_groups
from hybridflow.roles import TrainedRole
from hybridflow.tasks.grades import only_learnable
from hybridflow.workers.own_log_probs import OwnLogProbs, lacks_old_log_probs
from hybridflow.workers.preference_pairs import learnable_pairs, sides
from hybridflow.workers.worker import Context, Worker


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's `float32` or `bfloat16`."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


class ModelWorker(Worker):
    """Worker with one model."""

    def __init__(
        self,
        context: Context,
        settings: TrainedRoleConfig,
        *,
        head: Head = Head.lm,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        super().__init__(context)
        self.groups: Groups = make_groups(context.layout, context.config.trainer.collective_timeout_s)
        self.dtype = torch_dtype(settings.model.dtype.value)
        # A role whose section is not one of a model has no engine in the placement: its worker chose these settings.
        engine = training_engines.get(context.engines.training or settings.engine)
        self.engine: TrainingEngine = engine.build(
            settings,
            self.groups,
            head=head,
            optimizer=optimizer,
            total_steps=context.total_updates,
            seed=context.config.run.seed,
        )
        self._head = head
        self._offload = settings.offload
        self._offload_again()

    @contextmanager
    def model_loaded(self, *, learns: bool = False) -> Iterator[TrainingEngine]:
        """Have the model on the device for one call of the role; `offload` says what waits in host memory otherwise.

        Reports the most memory that the process used meanwhile, in GiB.

        Args:
            learns: the optimizer's state is needed too.
        """
        platform().reset_memory_peak()
        self.engine.onload(optimizer=learns)
        try:
            yield self.engine
        finally:
            self.context.metrics.max(f"{self.context.role}/memory_peak_gib", platform().memory_peak() / 2**30)
            self._offload_again()

    def _offload_again(self) -> None:
        self.engine.offload(weights=self._offload.weights, optimizer=self._offload.optimizer)

    def scored(self, batch: Batch, name: str, column: str, **options: Any) -> Batch:
        """Return a column of scores; an empty batch on ranks that have none to give. `options`: of the engine's
        `score`.
        """
        with self.model_loaded() as engine:
            scores = engine.score(batch, **options)
        return Batch() if scores is None else Batch(**{column: scores[name]})

    def temperature(self, rollout: Batch) -> np.ndarray:
        """Return the temperature, [R], at which the log-probs of sampled rows are taken: that of their sampling.

        Only what compares a policy with the one that sampled reads it. A loss of given text (supervised, preferences)
        is of the model itself, whose temperature is 1.
        """
        if "sampling_temperature" in rollout:
            return rollout.dense("sampling_temperature")
        return np.full(len(rollout), self.context.config.rollout.temperature, dtype=np.float32)

    def token_weights(self, batch: Batch, aggregate: str) -> Ragged:
        """Return the weight of each response token in the mean over all rows of this step, on all ranks."""
        learned = LearnedTokens.of(batch)
        lengths = torch.from_numpy(learned.lengths)
        tokens, rows = self.engine.global_sums(*totals(lengths))
        limit = self.context.config.rollout.max_response_tokens
        weights = aggregations.get(aggregate)(lengths, tokens, rows, limit=limit)
        return learned.spread(weights.numpy())

    def record(self, loss: TokenLoss) -> None:
        """Report what a loss says of its tokens."""
        metrics = self.context.metrics
        tokens = len(loss.loss)
        for name, total in loss.metrics.items():
            metrics.mean(name, float(total), tokens)
        for name, mean in loss.means.items():
            metrics.mean(name, float(mean) * tokens, tokens)
        for name, value in loss.maxima.items() if tokens else ():
            metrics.max(name, float(value))
        for name, weights in loss.weights.items():
            metrics.effective(name, weights.detach().float().cpu().numpy())


@contextmanager
def set_down(workers: Iterable[Worker]) -> Iterator[None]:
    """Let the engines of these workers wait in host memory, whatever they are told, and take them up again.

    A generation engine may start only if the share of a device's memory that it may have is free.
    """
    on_device = [worker for worker in workers if isinstance(worker, ModelWorker)]
    for worker in on_device:
        worker.engine.offload(weights=True, optimizer=True)
    try:
        yield
    finally:
        for worker in on_device:
            worker.engine.onload(optimizer=True)
            worker._offload_again()


class TrainedWorker(TrainedRole[Batch], ModelWorker):
    """Worker whose model learns."""

    def update(self, rows: Batch, loss: str, **options: Any) -> None:
        """Take one optimizer step on the registered loss of that name, with these options of its own."""
        made = self.make_loss(loss, **options)
        if made.of_pairs:
            self._update_on_pairs(learnable_pairs(rows), made)
        else:
            self._update_on_tokens(only_learnable(rows), made)

    def make_loss(self, name: str, **options: Any) -> Loss:
        """Make a registered loss. Raises KeyError for an unknown name, ValueError for an option that is wrong."""
        return with_options(losses, name, options)(self.context.config)

    def _update_on_tokens(self, rows: Batch, loss: Loss) -> None:
        weights = self.token_weights(rows, loss.aggregate)
        prepared = loss.prepare(rows, Surroundings(self.context.metrics, self.engine.global_sums))
        names = [*loss.declared_in(rows), *sorted(set(prepared.columns) - set(rows.columns))]
        terms = dict.fromkeys(loss.terms, 0.0)
        own = OwnLogProbs() if lacks_old_log_probs(loss, rows) else None

        def share(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            columns = token_columns(names, prepared, micro)
            if own is not None:
                columns[OLD_LOG_PROBS] = own.take(outputs, micro)
            token_loss = loss.token_loss(LossInputs(micro.lengths, *outputs, columns=columns))
            self.record(token_loss)
            weight = tokens_of(weights, micro)
            for name in terms:
                terms[name] += float((token_loss.terms[name].detach() * weight).sum())
            return (token_loss.loss * weight).sum()

        options: dict[str, Any] = {"temperature": self.temperature(rows) if loss.at_sampling_temperature else None}
        if own is not None:
            self.expect_first_update(rows)
            options["before_step"] = lambda: self.take_own_scores(own, rows)
        if self.learn(prepared, share, **options):
            # A rank has sums over its own rows, weighed by totals over all ranks: the ranks' sums add up.
            for name, part in terms.items():
                self.context.metrics.mean(name, part, 1 / self.groups.layout.data)

    def expect_first_update(self, rows: Batch) -> None:
        """Raise, on all ranks alike, if rows without old log-probs were learned from since they were sampled."""

    def take_own_scores(self, own: OwnLogProbs, rows: Batch) -> None:
        """Look at the log-probs of an update's own forward pass over its rows, before its step is taken; all ranks do.

        What it raises, on all ranks alike, keeps the step from being taken.
        """

    def _update_on_pairs(self, pairs: Batch, loss: Loss) -> None:
        total = self.engine.global_sums(float(len(pairs)))[0]

        def share(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            columns = pair_columns(loss, pairs, micro.rows[::2] // 2)
            pair_loss = loss.token_loss(LossInputs(micro.lengths, *outputs, columns=columns))
            self.record(pair_loss)
            return pair_loss.loss.sum() / total

        # Both sides of a pair are in one micro-batch, so its gradient is exact.
        self.learn(sides(pairs), share, rows_per_unit=2)

    def learn(self, batch: Batch, loss: LossShare, **options: Any) -> bool:
        """Take an optimizer step of the engine, with `options` of its `train`; report how it went.

        Without rows on any rank there is none, as the moments of earlier gradients would still move the weights; it
        counts as skipped. Return whether there were any.
        """
        role = self.context.role
        metrics = self.context.metrics
        tokens = batch.ragged("prompt_ids").lengths.sum() + batch.ragged("response_ids").lengths.sum()
        metrics.total(f"{role}/trained_rows", len(batch) // options.get("rows_per_unit", 1))
        metrics.total(f"{role}/trained_tokens", tokens)
        metrics.total(f"{role}/updates", float(self.groups.at.dp == 0))
        count, *by_replica = self.engine.global_sums(float(len(batch)), *self._at_own_place(float(tokens)))
        if not count:
            metrics.mean(f"{role}/skipped_steps", 1.0)
            return False
        if len(by_replica) > 1 and any(by_replica):
            metrics.mean(f"{role}/token_imbalance", max(by_replica) * len(by_replica) / sum(by_replica))
            metrics.mean(f"{role}/rows_per_replica", count / len(by_replica))
        with self.model_loaded(learns=True) as engine:
            begun = perf_counter()
            result = engine.train(batch, loss, **options)
            platform().synchronize()
            self._record_speed(batch, perf_counter() - begun)
        metrics.max(f"{role}/grad_norm", result.grad_norm)
        metrics.max(f"{role}/lr", result.lr)
        metrics.mean(f"{role}/skipped_steps", float(not result.applied))
        metrics.total(f"{role}/nonfinite_updates", float(not result.applied and self.groups.at.dp == 0))
        return True

    def _at_own_place(self, number: float) -> list[float]:
        """Return a number for each replica, 0 but for this one's: their sums are what each of them gave."""
        return [number if replica == self.groups.at.dp else 0.0 for replica in range(self.groups.layout.data)]

    def _record_speed(self, rows: Batch, seconds: float) -> None:
        """Report the model FLOPs a second of each rank of this replica; the rows are those of the replica."""
        layout = self.groups.layout
        lengths = rows.ragged("prompt_ids").lengths + rows.ragged("response_ids").lengths
        flops = training_flops(self.engine.shape, self._head, lengths) / (layout.size // layout.data)
        self.context.metrics.mean(f"{self.context.role}/tflops_per_rank", flops / 1e12, seconds)

    def state(self) -> dict[str, Any]:
        """Return what belongs to the role beside its engine; plain JSON, alike on all ranks."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take in what `state` gave."""

    def save_checkpoint(self, folder: str) -> DiskError | None:
        try:
            with writing(Path(folder)), self.model_loaded(learns=True) as engine:
                engine.save(Path(folder), self.state())
        except DiskError as error:  # given, not raised: nothing is wrong with this rank
            return error
        return None

    def load_checkpoint(self, folder: str) -> None:
        with self.model_loaded(learns=True) as engine:
            self.restore(engine.load(Path(folder)))


def pair_columns(loss: Loss, pairs: Batch, at: np.ndarray) -> dict[str, Tensor]:
    """Return the columns that a loss declared, of these pairs."""
    return {name: tensor(pairs.dense(name)[at]).to(platform().device) for name in loss.declared_in(pairs)}


def token_columns(names: Sequence[str], rows: Batch, micro: MicroBatch) -> dict[str, Tensor]:
    """Return columns at the tokens of a micro-batch, or at its rows if they are dense."""
    columns = {}
    for name in names:
        column = rows[name]
        if isinstance(column, Ragged):
            columns[name] = tokens_of(column, micro)
        else:
            columns[name] = tensor(column[micro.rows]).to(platform().device)
    return columns


def tokens_of(column: Ragged, micro: MicroBatch) -> Tensor:
    """Return a column's values, [N], over the responses at the tokens that the micro-batch's outputs are of."""
    values = column.select(micro.rows).values
    return tensor(values if micro.learned is None else values[micro.learned]).to(platform().device)


def tensor(column: np.ndarray) -> Tensor:
    """Copy the values of a column to a tensor: columns are read-only memory that others share."""
    return torch.tensor(column)
