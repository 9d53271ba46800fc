"""The actor: a Megatron engine that learns and a vLLM engine that generates, in one process (the 3D-HybridEngine)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.batch.weight_versions import WEIGHT_VERSION, largest_lag, refuse_other_tokens, row_lags
from hybridflow.config import auto_settings
from hybridflow.engines.megatron.engine import Loss, MegatronEngine, TokenOutputs
from hybridflow.engines.megatron.micro_batches import MicroBatch
from hybridflow.engines.vllm.requests import FinishedRow
from hybridflow.losses.corrections import CorrectionInputs, changed, correction, effective_share
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.policy_losses import PolicyInputs, policy_loss
from hybridflow.losses.preference_losses import dpo
from hybridflow.losses.segments import row_sums
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.platform import platform
from hybridflow.resharding.refit import Refit
from hybridflow.roles import ActorRole
from hybridflow.tasks.grades import only_learnable, over_learnable, settled
from hybridflow.workers.advantage import Estimation
from hybridflow.workers.generation_worker import GeneratingWorker, make_generator, report_taken, stream
from hybridflow.workers.model_worker import TrainedWorker, set_down, tensor, tokens_of
from hybridflow.workers.preference_pairs import learnable_pairs, sides
from hybridflow.workers.worker import Context, workers


@workers.register("actor")
class ActorWorker(ActorRole[Batch], GeneratingWorker, TrainedWorker):
    """Policy on one rank.

    Invariant: `version` counts the optimizer steps of these weights, and generation only ever runs on that version.
    """

    def __init__(self, context: Context) -> None:
        config = context.config
        super().__init__(context, config.actor, optimizer=config.actor.optimizer)
        self.version = 0
        self.start_generation()

    def start_generation(self) -> None:
        """Make vLLM and the way of its weights."""
        config = self.context.config
        with set_down([self, *self.context.peers.values()]):
            self.generator = make_generator(self.context)
        self.refit = Refit(
            self.engine.shape,
            self.groups,
            self.engine.weights,
            self.dtype,
            method=config.rollout.resharding.value,
            verify=config.rollout.verify_refit,
        )

    @property
    def sampling_version(self) -> int:
        return self.version

    def finished(self, prompts: Batch, step: int, changes: dict[str, Any]) -> Iterator[list[FinishedRow]]:
        """Sample with the newest weights. Generation's memory is there until the last row only."""
        self.sync_weights()
        try:
            yield from stream(self.context, self.generator, prompts, step, changes)
        finally:
            self.generator.sleep()

    def sync_weights(self) -> None:
        with self.context.timed("refit"):
            if self.generator.version == self.version:
                return
            with super().model_loaded():
                self.refit(self.generator, self.version)
                self.context.metrics.max("refit/training_bytes", self.engine.weights.nbytes)
                report_taken(self.context.metrics, self.generator, self.refit)

    @contextmanager
    def model_loaded(self, *, learns: bool = False) -> Iterator[MegatronEngine]:
        """Load the model for one call; generation's memory is not there meanwhile, also if it was synced before."""
        self.release_generation()
        with super().model_loaded(learns=learns) as engine:
            yield engine

    def release_generation(self) -> None:
        """Let generation's weights go, if they wait for a call that samples; that call brings them anew."""
        if self.generator.version is not None:
            self.generator.sleep()

    def compute_log_prob(self, rollout: Batch) -> Batch:
        """Score the rows; measure how far apart the two engines are, and the lag of the versions that sampled."""
        with self.model_loaded() as engine:
            scores = engine.score(rollout, temperature=self.temperature(rollout))
        if scores is None:
            return Batch()
        log_probs, learned = scores["log_probs"], LearnedTokens.of(rollout)
        apart = np.abs(learned.pick(log_probs) - learned.pick(rollout.ragged("rollout_log_probs")))
        tokens = len(apart)
        metrics = self.context.metrics
        metrics.mean("actor/rollout_log_prob_diff_mean", apart.sum(), tokens)
        metrics.max("actor/rollout_log_prob_diff_max", apart.max(initial=0.0))
        runs = rollout.ragged(WEIGHT_VERSION)
        refuse_other_tokens(runs, rollout.lengths("response_ids"))
        metrics.mean("rollout/version_lag_mean", row_lags(runs, self.version).sum(), len(runs))
        metrics.max("rollout/version_lag_max", largest_lag(runs, self.version))
        metrics.mean("actor/entropy", learned.pick(scores["entropy"]).sum(), tokens)
        return Batch(old_log_probs=log_probs)

    def compute_advantage(self, rollout: Batch, *, kl_coef: float) -> Batch:
        return self._estimated(rollout, lambda estimation: estimation.plain(kl_coef))

    def compute_constrained_advantage(self, rollout: Batch, *, kl_coef: float, multiplier: float) -> Batch:
        return self._estimated(rollout, lambda estimation: estimation.constrained(kl_coef, multiplier))

    def update_actor(self, rollout: Batch) -> None:
        rollout, settings = only_learnable(rollout), self.context.config.algorithm.policy_loss
        loss_of, kl_of = policy_loss(settings.name, settings.options), kl_estimators.get(settings.kl_estimator)
        weights = self.token_weights(rollout, settings.aggregate)
        corrections = self._corrections(rollout)
        used = {"pg_loss": True, "entropy_loss": settings.entropy_coef, "kl_loss": settings.kl_coef}
        sums = {name: 0.0 for name, coef in used.items() if coef}

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            old, advantages = (tokens_of(rollout.ragged(n), micro) for n in ("old_log_probs", "advantages"))
            found = loss_of(PolicyInputs(outputs.log_probs, old, advantages, micro.lengths))
            self.record(found)
            weight, terms = tokens_of(weights, micro), {"entropy_loss": outputs.entropy}
            terms["pg_loss"] = found.loss * tokens_of(corrections, micro)
            total = terms["pg_loss"] - settings.entropy_coef * outputs.entropy
            if settings.kl_coef:
                terms["kl_loss"] = kl_of(outputs.log_probs, tokens_of(rollout.ragged("ref_log_probs"), micro))
                total = total + settings.kl_coef * terms["kl_loss"]
            for name in sums:
                sums[name] += float((terms[name].detach() * weight).sum())
            return (total * weight).sum()

        if self._update(rollout, loss, temperature=self.temperature(rollout)):
            self._report_terms(sums)

    def update_preferred(self, pairs: Batch) -> None:
        """Take an optimizer step on pairs. Both sides of a pair are in one micro-batch, so its gradient is exact."""
        pairs = learnable_pairs(pairs)
        total, rows = self.engine.global_sums(float(len(pairs)))[0], sides(pairs)
        ref_chosen, ref_rejected = (tensor(pairs.dense(name)) for name in ("ref_chosen", "ref_rejected"))
        beta = self.context.config.algorithm.preference_loss.beta

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            sums, at = row_sums(outputs.log_probs, micro.lengths), torch.from_numpy(micro.rows[::2] // 2)
            reference = ref_chosen[at].to(sums.device), ref_rejected[at].to(sums.device)
            found = dpo(sums[::2], sums[1::2], *reference, beta)
            self.record(found)
            return found.loss.sum() / total

        self._update(rows, loss, rows_per_unit=2)

    def update_supervised(self, examples: Batch) -> None:
        examples = only_learnable(examples)
        weights = self.token_weights(examples, "token_mean")

        def loss(outputs: TokenOutputs, micro: MicroBatch) -> Tensor:
            self.context.metrics.mean("actor/nll", -float(outputs.log_probs.detach().sum()), len(outputs.log_probs))
            return -(outputs.log_probs * tokens_of(weights, micro)).sum()

        self._update(examples, loss)

    def save_model(self, folder: str) -> None:
        with writing(Path(folder)), self.model_loaded() as engine:
            engine.export(folder)

    def state(self) -> dict[str, Any]:
        """Return the weight version."""
        return {"weight_version": self.version}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the version. Generation has no weights yet, so its next call refits."""
        self.version = state["weight_version"]

    def _corrections(self, rollout: Batch) -> Ragged:
        """Return the factor of each token's policy loss, as its sampler was not quite the old policy."""
        config, responses = self.context.config, rollout.ragged("response_ids")
        part, asked = auto_settings.correction(config), config.algorithm.policy_loss.correction
        unknown = (
            asked.name == auto_settings.AUTO and "rollout_log_probs" not in rollout
        )  # rows that vLLM did not sample
        if part.name == "none" or unknown:
            return responses.like(np.ones(len(responses.values), dtype=np.float32))
        learned = LearnedTokens.of(rollout)
        old, sampler = (tensor(learned.pick(rollout.ragged(name))) for name in ("old_log_probs", "rollout_log_probs"))
        inputs = CorrectionInputs(old, sampler, torch.from_numpy(learned.lengths))
        found = correction(part.name, part.options)(inputs)
        exact, metrics = found.double(), self.context.metrics
        sums = float(exact.sum()), float(exact.square().sum()), float(len(found))
        metrics.mean("rollout_correction/effective_share", effective_share(*self.engine.global_sums(*sums)))
        metrics.mean("rollout_correction/weight", sums[0], len(found))
        metrics.mean("rollout_correction/changed", float(changed(inputs, found).sum()), len(found))
        return learned.spread(found.numpy())

    def _estimated(self, rollout: Batch, estimate: Callable[[Estimation], Batch]) -> Batch:
        """Advantages of the rows that are graded. Grades of an algorithm that made them itself are checked here."""

        def estimated(rows: Batch) -> Batch:
            return estimate(Estimation(rows, self.context, self._sum_over_ranks))

        self._report_masked(rollout)
        return over_learnable(settled(rollout, rollout, self.context.config, Metrics()), estimated)

    def _report_masked(self, rollout: Batch) -> None:
        """Report what `loss_mask` leaves out, if there is one."""
        learned, metrics = LearnedTokens.of(rollout), self.context.metrics
        if learned.mask is not None:
            metrics.total("rollout/masked_rows", float((learned.lengths == 0).sum()))
            metrics.mean("rollout/masked_fraction", float((~learned.mask).sum()), len(learned.mask))

    def _report_terms(self, terms: Mapping[str, float]) -> None:
        """Report the terms of the loss that an update minimised, without their coefficients; of several, their mean.

        A rank has the sums over its rows, already weighed by totals over all ranks, so the ranks' sums add up.
        """
        for name, part in terms.items():
            self.context.metrics.mean(f"actor/{name}", part, 1 / self.groups.layout.data)

    def _update(self, batch: Batch, loss: Loss, **options: Any) -> bool:
        self.version += 1
        return self.learn(batch, loss, **options)

    def _sum_over_ranks(self, vector: Tensor) -> Tensor:
        total = vector.to(platform().device)
        dist.all_reduce(total, group=self.groups.megatron.intra_dist_opt)
        return total.to(vector.device)
