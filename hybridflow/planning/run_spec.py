"""RunSpec: what a run computes, wherever its roles are: its flow, its models and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from hybridflow.config.schema import DType, Recompute, Resharding
from hybridflow.models import Head, ModelShape
from hybridflow.planning.lengths import Lengths

SYNC = "sync_weights"
"""The method of the call that gives generation the newest weights."""
NUMBER_BYTES = {DType.float32: 4, DType.bfloat16: 2}


class Work(StrEnum):
    """Kind of work that a call gives its ranks."""

    generate = "generate"  # prefill and decode
    score = "score"  # a forward
    train = "train"  # forward, backward and an optimizer step
    grade = "grade"  # of text, no model
    rows = "rows"  # numbers of rows alone, as advantages


@dataclass(frozen=True)
class FlowCall:
    """Call of a step's flow.

    Attributes:
        samples: whether it is part of what is called before a learner is needed (`Algorithm.rollout`).
        rows: that it is called with.
        after: the calls of the step, by their place in the flow, whose rows it reads or whose results were waited for.
        sequences: of a row that a model computes: two of a pair of responses.
        balanced: data parallel ranks share the rows out by their tokens; else by their number.
        reads: the columns that ranks fetch for it, each with its kind; of a call that learns all that rows have.
    """

    role: str
    method: str
    work: Work
    samples: bool
    rows: int
    after: tuple[int, ...] = ()
    sequences: int = 1
    balanced: bool = True
    reads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RoleModel:
    """Model of a role, and how its training engine runs it.

    Attributes:
        trains: it has gradients and an optimizer's state.
        sharded_optimizer: data parallel ranks share out that state (ZeRO 1).
        max_tokens_per_rank: of a micro-batch.
        sequence: tensor ranks share out the tokens between the layers that they cut.
        offloads_weights, offloads_optimizer: they leave the device while no call of the role runs.
        head: what it has on top as this role.
        engine: the registered name of its training engine.
        experts, active_experts: of a mixture, whose `shape.ffn` is one expert's: all, and those that a token takes.
    """

    shape: ModelShape
    dtype: DType
    trains: bool
    sharded_optimizer: bool = False
    recompute: Recompute = Recompute.none
    max_tokens_per_rank: int = 8192
    sequence: bool = False
    offloads_weights: bool = False
    offloads_optimizer: bool = False
    head: Head = Head.lm
    engine: str = "megatron"
    experts: int = 1
    active_experts: int = 1

    @property
    def number_bytes(self) -> int:
        """Return the bytes of a number in its format."""
        return NUMBER_BYTES[self.dtype]


class Load(NamedTuple):
    """Load of a rank, as far as its memory depends on a run's rows; all roles have the same.

    Attributes:
        trained, scored: rows of the largest call that trains, that scores; of pairs their sequences.
        row_tokens: of a row, in the mean.
        longest: tokens that a row has at most.
        alike: all rows have as many tokens.
        learned: share of the tokens that are a response's.
        group: rows of a prompt that an engine computes once for all of them; 1: for each of them.
        concurrent: rows that a generation replica decodes together.
        kv_cache_bytes, memory_fraction: as the spec has them.
        generation_engine: that the policy samples with.
    """

    trained: int
    scored: int
    row_tokens: float
    longest: float
    alike: bool
    learned: float
    concurrent: int
    kv_cache_bytes: float
    memory_fraction: float
    generation_engine: str
    group: int = 1


@dataclass(frozen=True)
class RunSpec:
    """Step of a run, without its placement.

    Attributes:
        flow: the calls of a step, in the order in which they are made.
        models: by role; those without one grade.
        prompts: of a step.
        samples: responses to each prompt.
        prompt_tokens, response_tokens: of a row.
        max_response_tokens: where a response is cut.
        schedule: its name, and what the settings change of it (`scheduling.policy_of`).
        max_concurrent_rows: that a generation replica decodes together.
        kv_cache_bytes: of a replica, where the settings say so (on a CPU); 0: what fits.
        memory_fraction: of a device for generation in all, where it does not.
        notes: what of all this is an expectation, in words.
        generation_engine: the registered name of what the policy samples with.
        resharding: the method of weight syncs where training's ranks generate.
        shares_prompts: training engines compute a prompt once for all of its responses, those of a pair too.
    """

    flow: tuple[FlowCall, ...]
    models: Mapping[str, RoleModel]
    prompts: int
    samples: int
    prompt_tokens: Lengths
    response_tokens: Lengths
    max_response_tokens: int
    schedule: str
    schedule_changes: Mapping[str, object]
    max_concurrent_rows: int
    kv_cache_bytes: float = 0.0
    memory_fraction: float = 0.4
    notes: tuple[str, ...] = ()
    generation_engine: str = "vllm"
    resharding: Resharding = Resharding.hybrid
    shares_prompts: bool = False

    @cached_property
    def load(self) -> Load:
        """Return what the memory of a rank depends on."""
        rows = {work: 0 for work in Work}
        for call in self.flow:
            rows[call.work] = max(rows[call.work], call.rows * call.sequences)
        mean = self.prompt_tokens.mean + self.response_tokens.mean
        return Load(
            trained=rows[Work.train],
            scored=rows[Work.score],
            row_tokens=mean,
            longest=self.prompt_tokens.max + self.response_tokens.max,
            alike=self.prompt_tokens.deviation + self.response_tokens.deviation == 0,
            learned=self.response_tokens.mean / max(mean, 1.0),
            concurrent=self.max_concurrent_rows,
            kv_cache_bytes=self.kv_cache_bytes,
            memory_fraction=self.memory_fraction,
            generation_engine=self.generation_engine,
            group=self.samples * max((call.sequences for call in self.flow), default=1) if self.shares_prompts else 1,
        )

    @property
    def rows(self) -> int:
        """Return the rows of a step."""
        return self.prompts * self.samples
