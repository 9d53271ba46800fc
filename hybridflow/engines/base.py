"""Protocols behind which engines stand, and the registries from which settings choose one by its name.

An engine has two parts. A *backend* is light: it says how the engine cuts a model and what it does not take, so that
checks and plans can ask it on the controller, and on ranks that have another engine. Its `build` makes the *engine*, on
a rank, and imports what that needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hybridflow.batch import Batch, Ragged
from hybridflow.config.schema import ModelConfig, OptimizerConfig, RolloutConfig, TrainedRoleConfig
from hybridflow.engines.generation_session import RoundSession, Session
from hybridflow.engines.outputs import LossShare, StepResult
from hybridflow.engines.sampling import FinishedRow, Generated, Sampling
from hybridflow.engines.sharding import Sharding, Shardings
from hybridflow.engines.weight_readings import WeightReadings
from hybridflow.models import Head, ModelShape, Weight
from hybridflow.parallel.layout import Layout
from hybridflow.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hybridflow.parallel.process_groups import Groups


class TrainingEngine(ABC):
    """Model of one role on this rank: scores rows, and takes optimizer steps on them.

    All ranks of the role make the same calls; each data parallel rank with its own rows, of which there may be none.

    Attributes:
        shape: the model's.
        sharding: of its weights.
        groups: the role's.
    """

    shape: ModelShape
    sharding: Sharding
    groups: Groups

    @abstractmethod
    def score(self, batch: Batch, *, temperature: np.ndarray | None = None) -> dict[str, Ragged] | None:
        """Return log-probs and entropy, or values, of every response token that is learned from, without gradients.

        Args:
            batch: `prompt_ids` and `response_ids`, and perhaps `loss_mask`: tokens with 0 have no outputs, here
                and in `train` (`hybridflow.batch.loss_mask`).
            temperature: [R] float, by which each row's logits are divided: as they were in sampling it. None: 1, the
                model's own distribution.

        Returns:
            Ragged columns over the responses by the names of `TokenOutputs`, 0 at tokens that are not learned from;
            None on ranks that have no outputs.
        """

    @abstractmethod
    def score_rows(self, batch: Batch) -> np.ndarray | None:
        """Return a reward model's [R] float32 scores, without gradients; None on ranks that have no outputs."""

    @abstractmethod
    def train(
        self,
        batch: Batch,
        loss: LossShare,
        *,
        rows_per_unit: int = 1,
        temperature: np.ndarray | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> StepResult:
        """Take one optimizer step.

        Args:
            loss: called once for each micro-batch on ranks that have outputs.
            rows_per_unit: so many rows that follow one another are never parted, as the two of a preference.
            temperature: as in `score`.
            before_step: called on all ranks, one without rows too, once the gradient is there. What it raises, on all
                of them alike, leaves weights, optimizer and schedule as they were.
        """

    def global_sums(self, *values: float) -> list[float]:
        """Return sums over the data parallel ranks."""
        return self.groups.global_sums(*values)

    @abstractmethod
    def shard(self, weight: Weight) -> Tensor:
        """Return a view of this rank's region of a weight, as `sharding` has it.

        Its numbers are in the region's order. A first axis may be split in two, where the engine keeps the rows of
        several weights in turns.
        """

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of this rank's weights with their padding, without gradients and optimizer."""

    @abstractmethod
    def export(self, folder: str | Path) -> None:
        """Write the weights as a Hugging Face folder; all ranks call it."""

    @abstractmethod
    def save(self, folder: Path, extra: Mapping[str, Any]) -> None:
        """Write weights, optimizer, schedule and random states to a new folder; all ranks call it.

        Args:
            extra: what else belongs to the role; plain JSON, alike on all ranks.
        """

    @abstractmethod
    def load(self, folder: Path) -> dict[str, Any]:
        """Bring a freshly built engine to what `save` wrote, under any layout, and return what was `extra`."""

    @abstractmethod
    def offload(self, *, weights: bool, optimizer: bool) -> None:
        """Move the weights, or what only an optimizer step needs, to host memory, unless it is there."""

    @abstractmethod
    def onload(self, *, optimizer: bool) -> None:
        """Bring back the weights, and for an optimizer step the rest."""


class GenerationEngine(ABC):
    """Part of a generation replica on this rank.

    Its weights come only through `update_weights`. It sleeps when it is made and after `sleep`; `update_weights` wakes
    it.

    Attributes:
        version: of the weights it has; None before the first update, after one that did not finish, and after a sleep
            in which they were lost.
    """

    version: int | None

    @abstractmethod
    def update_weights(
        self, shards: Iterator[tuple[str, Tensor]], version: int, *, readings: WeightReadings | None = None
    ) -> None:
        """Take the weights of that version. Until it returns, the engine has no usable weights.

        Args:
            shards: by Hugging Face name, this rank's region of each weight, as its sharding has it; each is good until
                the next one is asked for.
            readings: to `read` each weight into, out of what the engine will compute with; the later the better.
        """

    @abstractmethod
    def stream(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Iterator[list[FinishedRow]]:
        """Sample one response a prompt and yield them as they finish, some together.

        All ranks of a replica call it with the same prompts, and take equally much of it. Whoever closes it early ends
        what is under way. What came before a call must not show in its results, not even in their last bits.

        Args:
            seeds: one a row, of its random stream.

        Raises RuntimeError if the engine has no weights or another stream is under way, ValueError if a prompt leaves
        no room for its response or has an id that is no token of the model.
        """

    def generate(self, prompts: Ragged, sampling: Sampling, seeds: Sequence[int]) -> Generated:
        """Return one response a prompt, in the order of the prompts."""
        return Generated.of(chain.from_iterable(self.stream(prompts, sampling, seeds)))

    def session(self) -> Session:
        """Begin a session, in which rows are submitted while others are under way. There is one at a time.

        An engine that does not write it has one in which they wait for those before them. Raises RuntimeError as
        `stream`.
        """
        return RoundSession(self)

    @abstractmethod
    def sleep(self) -> None:
        """Leave the device's memory to others until the next `update_weights`."""

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of this rank's weights while it is awake, as they were loaded."""


class TrainingBackend(ABC):
    """Knowledge of a training engine where it cannot be imported, and its maker where it can.

    Attributes:
        parallelism: of `context` and `expert`, the kinds that it has.
    """

    parallelism: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @abstractmethod
    def sharding(cls, shape: ModelShape, layout: Layout, *, head: Head = Head.lm) -> Sharding:
        """Return how it lays a model over a layout. Raises ShardingError if it cannot."""

    @classmethod
    @abstractmethod
    def build(
        cls,
        settings: TrainedRoleConfig,
        groups: Groups,
        *,
        head: Head = Head.lm,
        optimizer: OptimizerConfig | None = None,
        total_steps: int = 1,
        seed: int = 1,
    ) -> TrainingEngine:
        """Make the engine of a role on this rank, with its weights.

        Args:
            optimizer: None for a model that only scores.
            total_steps: optimizer steps that are planned; the learning-rate schedule spans them.

        Raises ValueError for a model that it does not take.
        """

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        """Look at what engines saved to `folder`, before any is built.

        Raises HybridFlowError if it is not safe to load: it comes from who knows where.
        """
        return

    @classmethod
    def saved_shapes(cls, folder: Path) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the weights that engines saved to `folder`, by Hugging Face names, as far as known."""
        return {}

    @classmethod
    def read_saved(cls, folder: Path, weights: Sequence[Weight]) -> Iterator[tuple[str, Tensor]]:
        """Yield the whole float32 tensors that engines of any layout saved to `folder`; one process reads them.

        Raises ValueError if what it saves cannot be read so, KeyError naming a tensor that is not there.
        """
        raise ValueError(f"{cls.__name__} cannot read the weights of its checkpoints in one process")


class GenerationBackend(ABC):
    """Knowledge of a generation engine where it cannot be imported, and its maker where it can.

    Attributes:
        renews: rows of its sessions go on with other weights (`Session.renewing`).
    """

    renews: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def sharding(cls, shape: ModelShape, layout: Layout) -> Sharding:
        """Return how it lays a model over the generation view of a layout. Raises ShardingError if it cannot."""

    @classmethod
    def refuse(cls, shape: ModelShape, device: str) -> None:
        """Raise ValueError for a model that it does not take on that kind of device, "cpu" or "cuda"."""
        return

    @classmethod
    @abstractmethod
    def build(
        cls, model: ModelConfig, layout: Layout, rollout: RolloutConfig, *, seed: int, stop_ids: Sequence[int]
    ) -> GenerationEngine:
        """Make the engine on this rank, asleep; no weight is read from the model's folder.

        Args:
            stop_ids: token ids that end a response (the end is part of it).

        Raises ValueError for a model that it does not take.
        """


training_engines: Registry[type[TrainingBackend]] = Registry(
    "training engine", "hybridflow.engines.megatron.backend", of=TrainingBackend
)
generation_engines: Registry[type[GenerationBackend]] = Registry(
    "generation engine", "hybridflow.engines.vllm.backend", of=GenerationBackend
)


def make_shardings(
    training: str, generation: str, shape: ModelShape, layout: Layout, generation_layout: Layout
) -> Shardings:
    """Lay a model out over two layouts, or over the two views of one, as the engines of these names do.

    Raises ShardingError if one cannot.
    """
    return Shardings(
        training_engines.get(training).sharding(shape, layout),
        generation_engines.get(generation).sharding(shape, generation_layout),
    )
