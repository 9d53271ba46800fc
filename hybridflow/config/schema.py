"""Every setting of hybridflow and its default, once.

Hydra composes YAML over these dataclasses; code receives them as plain objects. Sizes are global and their
name says what they count (rows, tokens, steps, slots). `MISSING` marks what a user or an experiment must give.
A number is annotated with its `Bounds`, or with why any number will do; `config.number_bounds` reads them. Its
comment is what `config.setting_keys` tells of it, in the help and in docs/settings.md.
The settings of roles and of the algorithm stand in `role_settings` and `algorithm_settings`; import them from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from os.path import expanduser
from typing import Annotated, Any

from omegaconf import MISSING

from hybridflow.bounds import Bounds, Count, NotNegativeInt, Rows, Seconds
from hybridflow.config import pool_sizes
from hybridflow.config.algorithm_settings import (
    AdvantageConfig,
    AlgorithmConfig,
    ComponentConfig,
    LagrangeConfig,
    PolicyLossConfig,
    PreferenceLossConfig,
    ValueLossConfig,
)
from hybridflow.config.role_settings import (
    ActorConfig,
    CostConfig,
    CostCriticConfig,
    CriticConfig,
    Decay,
    DType,
    EnvironmentConfig,
    ModelConfig,
    OffloadConfig,
    OptimizerConfig,
    ParallelConfig,
    Recompute,
    ReferenceConfig,
    Resharding,
    RewardConfig,
    RewardModelConfig,
    RolloutConfig,
    RolloutRecovery,
    TrainedRoleConfig,
    TrainParallelConfig,
)
from hybridflow.scheduling.schedule_policy import Stopped

__all__ = [
    "SECTIONS",
    "ActorConfig",
    "AdvantageConfig",
    "AlgorithmConfig",
    "ComponentConfig",
    "Config",
    "CostConfig",
    "CostCriticConfig",
    "CriticConfig",
    "DType",
    "Decay",
    "Device",
    "EnvironmentConfig",
    "LagrangeConfig",
    "ModelConfig",
    "OffloadConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PlacementConfig",
    "PolicyLossConfig",
    "PreferenceLossConfig",
    "RayClusterConfig",
    "Recompute",
    "ReferenceConfig",
    "Resharding",
    "RewardConfig",
    "RewardModelConfig",
    "RolloutConfig",
    "RolloutRecovery",
    "RunConfig",
    "TaskConfig",
    "TooLong",
    "TrainParallelConfig",
    "TrainedRoleConfig",
    "TrainerConfig",
    "ValueLossConfig",
]


PoolSlots = Annotated[Any, "at least 1 and at most 65536, {nodes: N, slots: M}, or auto"]


class TooLong(StrEnum):
    """Policy for a row whose tokens do not fit a sequence."""

    error = "error"  # the run ends, and names it
    drop = "drop"  # it is left out; how many are is said at the start
    truncate_left = "truncate_left"  # its prompt loses its first tokens; how many are cut is said at the start


class Malformed(StrEnum):
    """Policy for a row that cannot be read or used."""

    error = "error"  # the run ends, and names it
    skip = "skip"  # it is left out; how many are, and why, is said at the start


class FullDisk(StrEnum):
    """Policy for what the disk of the run folder has no room for. Checkpoints from before stay whole in any case."""

    stop = "stop"  # the run ends, and says so
    go_on = "go_on"  # it warns and goes on, without that checkpoint; lines of metrics wait for room


class Device(StrEnum):
    """Hardware of the slots that models run on. Slots without models are CPUs."""

    auto = "auto"  # GPUs where there are any, and then one for each slot; else CPUs
    cpu = "cpu"
    gpu = "gpu"


@dataclass
class CurriculumConfig:
    """Order of training by a field of the rows that tells how hard they are, in place of a shuffled one."""

    by: str = ""  # a field of their metadata, as difficulty or extra_info.level; empty: shuffled
    levels: list[str] = field(default_factory=list)  # its values from easy to hard, where they are no numbers
    descending: bool = False  # the large ones first
    # 0: each epoch is sorted; N: the first has the easiest 1/N of the rows, the next 2/N, ..., from the Nth on all
    pools: NotNegativeInt = 0


@dataclass
class TaskConfig:
    """Source of prompts."""

    name: str = MISSING  # the registered name of the task
    options: dict[str, Any] = field(default_factory=dict)  # what that task's constructor takes
    too_long: TooLong = TooLong.error  # what becomes of a row that does not fit rollout.max_sequence_tokens
    malformed: Malformed = Malformed.error  # what becomes of a row that cannot be read, or used as it is
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # its variables, as enable_thinking
    tools: str = ""  # a JSON file with the list of tools that the chat template is given
    system_prompt: str = ""  # put before chats that have none
    as_chat: bool = False  # a prompt that is a text becomes a user's message
    prefill: str = ""  # the assistant's turn begins with this text
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)


@dataclass
class PlacementConfig:
    """Placement of roles on pools of slots. A slot is one process: one GPU, or one thread of a CPU."""

    # by pool, its slots: a number, so many on each of some nodes, or auto: all that no other pool takes of the cluster
    pools: dict[str, PoolSlots] = field(default_factory=dict)
    # by role, its pool; a role left out goes to the first, rollout to the actor's
    roles: dict[str, str] = field(default_factory=dict)
    device: Device = Device.auto  # hardware of slots with models; auto: GPUs where there are any
    # with a pool for rollout: the actor's slots generate too, while they have nothing to learn from
    lend_idle_slots: bool = False

    def __post_init__(self) -> None:
        self.pools = {name: pool_sizes.whole(size) for name, size in self.pools.items()}


@dataclass
class TrainerConfig:
    """Loop around the algorithm's step."""

    steps: NotNegativeInt = 100  # steps of the run in all, those before a resumption too
    schedule: str = "sync"  # the order of a step's parts, by name
    # of the schedule async: published versions that weights which sampled may be behind a step's; null: 1
    max_staleness: Annotated[int, Bounds(at_least=0, at_most=1000)] | None = None
    # of the schedule async: rows under way go on with new weights, which else wait for them; null: true
    partial: bool | None = None
    # of the schedule async with max_staleness 0: prompts beyond a step's that it samples, which ends with the first
    spare_prompts: Annotated[int, Bounds(at_least=0, at_most=2**20)] = 0
    stopped: Stopped = Stopped.next_step  # of spare_prompts: what becomes of those that a step ends without
    sampler: str = ""  # of async and stream: which finished prompts a step learns from, by name; "": windowed_fifo
    validate_every: NotNegativeInt = 0  # steps between validations; 0: only before and after
    validation_prompts: Count = 512  # held-out rows of a validation, the first ones
    validation_samples: Rows = 1  # answers to each of them
    # of their sampling
    validation_temperature: Annotated[float, Bounds(at_least=0.01, at_most=2, also={0: "the likeliest tokens"})] = 0.0
    # by name, settings of a task, whose held-out rows are asked too, in the form that `task` gives its own
    validation_sets: dict[str, Any] = field(default_factory=dict)
    log_answers: bool = True  # write the answers of validations out
    stop_at_accuracy: Annotated[float, Bounds(at_least=0, at_most=1)] | None = None  # end once a validation reaches it
    # steps between the steps whose rows are written out, and one of them shown; 0: never
    log_rollouts_every: NotNegativeInt = 10
    # of the rows that a rank writes out, the first ones: those with advantages and log-probs of each token
    log_token_rows: NotNegativeInt = 16
    # steps between the steps whose calls on ranks are written out with their times; 0: never
    timeline_every: NotNegativeInt = 10
    # steps, the first of a run being 0, of which each rank with a model writes what torch computed, for trace viewers
    profile_steps: list[NotNegativeInt] = field(default_factory=list)
    # a hardware file by name or path, as plan takes it: ROLE/mfu is a share of its flops; "": of GPUs that are known
    hardware: str = ""
    # where metrics go, by name: jsonl, live, tensorboard, wandb, mlflow, trackio, or yours; see docs/metrics.md
    metric_sinks: list[str] = field(default_factory=lambda: ["jsonl", "live", "tensorboard"])
    sink_options: dict[str, Any] = field(default_factory=dict)  # by sink, what it takes: `wandb: {project: mine}`
    print_every_step: bool = False  # a line for every step, also on a terminal
    collective_timeout_s: Seconds = 600.0  # that ranks wait for each other before the call fails
    call_timeout_s: Seconds = 7200.0  # that one call on a role's ranks may take, whatever it does, before it fails
    call_timeouts_s: dict[str, Seconds] = field(default_factory=dict)  # by role, instead of that
    # that the run goes on after, within failure_window_s: lost or hung processes, nodes, links; 0: the first ends it
    max_failures: NotNegativeInt = 3
    failure_window_s: Seconds = 3600.0  # seconds in which failures are counted
    max_nonfinite_updates: Count = 10  # in a row, of a role, whose gradient is not finite: then the run ends
    # that a step has to end after SIGTERM or Ctrl-C, before the run saves and stops; later it is abandoned
    grace_s: Annotated[float, Bounds(at_least=0, at_most=31536000)] = 20.0
    save_every: NotNegativeInt = 0  # steps between checkpoints, and one at the end; 0: none
    keep_last: Count = 2  # checkpoints that are kept
    full_disk: FullDisk = FullDisk.stop  # what becomes of the run if the disk of its folder takes no more: stop, go_on
    keep_best: str = ""  # the metric of validations by which the best checkpoint is kept too; of a loss the smallest
    resume: str = "auto"  # auto: from this run's newest checkpoint, if any; never; or the path of a checkpoint

    def __post_init__(self) -> None:
        self.resume = expanduser(self.resume)


@dataclass
class RunConfig:
    """Name, place and seed of a run."""

    name: str = MISSING  # of the run, and of its folder inside run.root
    root: str = "runs"  # the folder of run folders
    seed: Annotated[int, Bounds(at_least=0, less_than=2**63)] = 1  # of everything that is drawn at random

    def __post_init__(self) -> None:
        self.root = expanduser(self.root)


@dataclass
class RayClusterConfig:
    """`local` starts a cluster for this run; `auto` or an address joins one and never stops it."""

    address: str = "local"  # local, auto, or the address of a cluster's head
    start_timeout_s: Seconds = 600.0  # until slots are free, processes are there, and a role is built
    # of a cluster that is joined: until nodes are there that could hold the pools, whoever has their slots now
    nodes_timeout_s: Seconds = 20.0
    # of a local cluster's store, in which rows travel
    object_store_gib: Annotated[
        float, Bounds(at_least=0.08, at_most=2**20, also={0: "as Ray has it, 30 % of the memory"})
    ] = 0.0


@dataclass
class Config:
    """Settings of a whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    ray: RayClusterConfig = field(default_factory=RayClusterConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    cost_critic: CostCriticConfig = field(default_factory=CostCriticConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    plugins: list[str] = field(default_factory=list)  # modules imported first, on the controller and on every rank


SECTIONS = frozenset(entry.name for entry in fields(Config))
"""The top-level keys of the settings."""
