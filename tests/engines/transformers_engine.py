"""A second engine of each kind, as a user's plugin: transformers and torch's AdamW, each rank with the whole model.

Nothing is cut, so their shardings are trivial; everything else is what `hybridflow.engines.base` asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens
from hybridflow.config.schema import ModelConfig, OptimizerConfig, RolloutConfig, TrainedRoleConfig
from hybridflow.engines import base
from hybridflow.engines.learning_rate import learning_rate
from hybridflow.engines.outputs import LossShare, MicroBatch, StepResult, TokenOutputs
from hybridflow.engines.sampling import END, LENGTH, STOP, FinishedRow, Sampling
from hybridflow.engines.sharding import TensorSharding
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.models import Head, ModelShape, Weight, model_export, read_shape
from hybridflow.parallel.layout import Layout
from hybridflow.parallel.process_groups import Groups


class TransformersTrainer(base.TrainingEngine):
    """A causal model, with a linear layer in place of its output layer where the head is a scalar."""

    def __init__(
        self, folder: str, groups: Groups, head: Head, settings: OptimizerConfig | None, total_steps: int
    ) -> None:
        self.folder, self.groups, self.shape = Path(folder), groups, read_shape(folder)
        self.sharding = TensorSharding(self.shape, head=head)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.get_input_embeddings().padding_idx = None  # it would take the gradient from a token
        self.params: dict[str, nn.Parameter] = dict(self.model.named_parameters())
        if head.weight is not None:
            self.params.pop("lm_head.weight", None)
            self.model.lm_head = nn.Linear(self.shape.hidden, 1, bias=False)
            self.params[head.weight] = nn.init.zeros_(self.model.lm_head.weight)
        self.settings, self.total_steps, self.steps = settings, total_steps, 0
        self.optimizer = _adamw(self.params, settings) if settings else None

    def score(self, batch: Batch, *, temperature: np.ndarray | None = None) -> dict[str, Ragged]:
        names = ("values",) if self.sharding.head is Head.value else ("log_probs", "entropy")
        found = self._scored(batch, temperature)
        return {name: LearnedTokens.of(batch).spread(_end_to_end(found, name)) for name in names}

    def score_rows(self, batch: Batch) -> np.ndarray:
        return _end_to_end(self._scored(batch, None), "scores")

    def train(
        self,
        batch: Batch,
        loss: LossShare,
        *,
        rows_per_unit: int = 1,
        temperature: np.ndarray | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> StepResult:
        assert self.optimizer is not None and self.settings is not None
        for param in self.params.values():
            param.grad = torch.zeros_like(param)
        for micro in micro_batches(batch, rows_per_unit):
            loss(self._outputs(batch, micro, temperature), micro).backward()
        for param in self.params.values():
            dist.all_reduce(param.grad, group=self.groups.dp)
        if before_step is not None:
            before_step()
        rate = learning_rate(self.steps, self.settings, self.total_steps)
        self.steps += 1
        norm = float(nn.utils.clip_grad_norm_(self.params.values(), self.settings.clip_grad or float("inf")))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if applied := bool(np.isfinite(norm)):
            self.optimizer.step()
        return StepResult(applied, norm, rate)

    def shard(self, weight: Weight) -> Tensor:
        return self.params[weight.name].data

    @property
    def weight_bytes(self) -> int:
        return sum(param.nbytes for param in self.params.values())

    def export(self, folder: str | Path) -> None:
        if self.groups.rank == 0:
            partial = model_export.begin(Path(folder).resolve())
            save_file({name: param.data.clone() for name, param in self.params.items()}, partial / "model.safetensors")
            model_export.copy_extras(self.folder, partial)
            model_export.write_config(self.folder, partial, dtype="float32", head=self.sharding.head)
            model_export.finish(Path(folder).resolve())
        dist.barrier(group=self.groups.everyone)

    def save(self, folder: Path, extra: Mapping[str, Any]) -> None:
        assert self.optimizer is not None
        if self.groups.rank == 0:
            folder.mkdir(parents=True)
            moments = self.optimizer.state
            state = {f"{kind}/{n}": moments[p][kind] for n, p in self.params.items() for kind in moments[p]}
            save_file(state | {f"weights/{name}": param.data for name, param in self.params.items()}, folder / "state")
            (folder / "state.json").write_text(json.dumps({"steps": self.steps, "extra": dict(extra)}))
        dist.barrier(group=self.groups.everyone)

    def load(self, folder: Path) -> dict[str, Any]:
        assert self.optimizer is not None
        for key, value in load_file(folder / "state").items():
            kind, _, name = key.partition("/")
            if kind == "weights":
                self.params[name].data.copy_(value)
            else:
                self.optimizer.state[self.params[name]][kind] = value
        said = json.loads((folder / "state.json").read_text())
        self.steps = said["steps"]
        return dict(said["extra"])

    def offload(self, *, weights: bool, optimizer: bool) -> None:
        """They stay where they are."""

    def onload(self, *, optimizer: bool) -> None:
        """They are there."""

    def _scored(self, batch: Batch, temperature: np.ndarray | None) -> list[TokenOutputs]:
        with torch.no_grad():
            return [self._outputs(batch, micro, temperature) for micro in micro_batches(batch, 1)]

    def _outputs(self, batch: Batch, micro: MicroBatch, temperature: np.ndarray | None) -> TokenOutputs:
        """Rows padded on the right, which causal attention does not see."""
        prompts, responses = (batch.ragged(name).select(micro.rows) for name in ("prompt_ids", "response_ids"))
        rows = [torch.from_numpy(np.concatenate(pair)) for pair in zip(prompts, responses, strict=True)]
        lines = self.model(nn.utils.rnn.pad_sequence(rows, batch_first=True)).logits
        none = lines.new_zeros(0)
        if self.sharding.head is Head.reward:
            scores = torch.stack([line[len(row) - 1, 0] for line, row in zip(lines, rows, strict=True)])
            return TokenOutputs(none, none, none, scores)
        spans = zip(lines, prompts.lengths.tolist(), responses.lengths.tolist(), strict=True)
        at_tokens = torch.cat([line[before - 1 : before - 1 + length] for line, before, length in spans])
        learned = slice(None) if micro.learned is None else torch.from_numpy(micro.learned)
        if self.sharding.head is Head.value:
            return TokenOutputs(none, none, at_tokens[learned, 0], none)
        heat = np.ones(len(batch), np.float32) if temperature is None else temperature
        of_token = torch.tensor(np.repeat(heat[micro.rows], responses.lengths))
        log_p = (at_tokens / of_token[:, None])[learned].log_softmax(-1)
        log_probs = log_p.gather(-1, micro.targets[:, None])[:, 0]
        return TokenOutputs(log_probs, -(log_p.exp() * log_p).sum(-1), none, none)


class TransformersGenerator(base.GenerationEngine):
    """transformers' `generate`, a row at a time with the row's own seed."""

    def __init__(self, folder: str, stop_ids: Sequence[int]) -> None:
        self.version: int | None = None
        self.model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        self.tokenizer, self.stop_ids = AutoTokenizer.from_pretrained(folder), list(stop_ids)
        self.params = dict(self.model.named_parameters())

    @torch.no_grad()
    def update_weights(
        self, shards: Iterator[tuple[str, Tensor]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        self.version = None
        came = []
        for name, shard in shards:
            self.params[name].copy_(shard)
            came.append(name)
        if readings:
            for name in came:
                readings.read(name, self.params[name])
        self.version = version

    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        if self.version is None:
            raise RuntimeError("generation was asked for before it had weights")
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                yield [self._sampled(row, prompt, sampling)]

    def _sampled(self, row: int, prompt: np.ndarray, sampling: Sampling) -> FinishedRow:
        size, ends = self.model.vocab_size, [*self.stop_ids, *sampling.stop_token_ids]
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            top_k = max(sampling.top_k, 0)
            options = dict(do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=top_k)
        if sampling.stop:
            options |= {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        found = self.model.generate(
            torch.tensor(prompt)[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=sampling.max_tokens, eos_token_id=ends, pad_token_id=ends[0], output_scores=True,
            return_dict_in_generate=True, suppress_tokens=list(range(sampling.vocabulary or size, size)),
            **options,
        )  # fmt: skip
        tokens = found.sequences[0, len(prompt) :]
        log_probs = torch.cat(found.scores).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        by_end = END if int(tokens[-1]) in self.stop_ids else STOP
        cut = len(tokens) == sampling.max_tokens and int(tokens[-1]) not in ends
        return FinishedRow(row, tokens.numpy(), log_probs.numpy(), LENGTH if cut else by_end, 0)

    def sleep(self) -> None:
        """Its weights stay."""

    @property
    def weight_bytes(self) -> int:
        return sum(param.nbytes for param in self.params.values())


@base.training_engines.register("transformers")
class TransformersTraining(base.TrainingBackend):
    """Data parallelism only."""

    @classmethod
    def sharding(cls, shape: ModelShape, layout: Layout, *, head: Head = Head.lm) -> TensorSharding:
        return TensorSharding(shape, layout.tensor, layout.pipeline, head)

    @classmethod
    def build(cls, settings: TrainedRoleConfig, groups: Groups, **options: Any) -> TransformersTrainer:
        head, optimizer = options["head"], options["optimizer"]
        return TransformersTrainer(settings.model.path, groups, head, optimizer, options["total_steps"])


@base.generation_engines.register("transformers")
class TransformersGeneration(base.GenerationBackend):
    """One rank a replica."""

    @classmethod
    def sharding(cls, shape: ModelShape, layout: Layout) -> TensorSharding:
        return TensorSharding(shape, *layout.generation_sizes)

    @classmethod
    def build(cls, model: ModelConfig, layout: Layout, rollout: RolloutConfig, **options: Any) -> TransformersGenerator:
        return TransformersGenerator(model.path, options["stop_ids"])


def _adamw(params: dict[str, nn.Parameter], settings: OptimizerConfig) -> torch.optim.AdamW:
    """Biases and norms do not decay."""
    flat, rest = ([p for p in params.values() if (p.dim() == 1) is one] for one in (True, False))
    groups = [{"params": rest, "weight_decay": settings.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps)


def micro_batches(batch: Batch, rows_per_unit: int, units: int = 16) -> Iterator[MicroBatch]:
    """A batch's rows as they stand, so many units of them at a time."""
    size = units * rows_per_unit
    for rows in np.split(np.arange(len(batch)), range(size, len(batch), size)):
        learned = LearnedTokens.of(batch).select(rows)
        targets = torch.tensor(learned.pick(learned.responses))
        if len(rows):
            yield MicroBatch(rows, torch.from_numpy(learned.lengths), learned.mask, targets)


def _end_to_end(found: list[TokenOutputs], name: str) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(getattr(one, name).numpy() for one in found)])
