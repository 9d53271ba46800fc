"""Every setting of hybridflow and its default, once.

Hydra composes YAML over these dataclasses; code receives them as plain objects. Sizes are global and their
name says what they count (rows, tokens, steps, slots). `MISSING` marks what a user or an experiment must give.
A number is annotated with its `Bounds`, or with why any number will do; `config.numbers` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from os.path import expanduser
from typing import Annotated, Any

from omegaconf import MISSING

from hybridflow.bounds import Bounds, Count, Level, NotNegative, NotNegativeInt, Positive, Seconds, Share


class DType(StrEnum):
    """Number format of a model's weights and activations. Optimizer state is always float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Decay(StrEnum):
    """Shape of the learning rate after its warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Recompute(StrEnum):
    """Activations that are computed again in the backward pass instead of being kept (arXiv 2205.05198, section 5)."""

    none = "none"
    selective = "selective"  # the attention of each layer
    full = "full"  # each layer, from its input


class TooLong(StrEnum):
    """Policy for a row whose tokens do not fit a sequence."""

    error = "error"  # the run ends, and names it
    drop = "drop"  # it is left out; how many are is said at the start
    truncate_left = "truncate_left"  # its prompt loses its first tokens; how many are cut is said at the start


class Resharding(StrEnum):
    """Method that brings weights from training's layout to generation's. The first is ours, others for comparison."""

    hybrid = "hybrid"  # each rank gathers its generation shard, which contains its training shard
    hybrid_v = "hybrid_v"  # each gathers the whole model; generation's places are neighbors
    full_gather = "full_gather"  # each gathers the whole model; places as in hybrid


class Device(StrEnum):
    """Hardware of the slots that models run on. Slots without models are CPUs."""

    auto = "auto"  # GPUs where there are any, and then one for each slot; else CPUs
    cpu = "cpu"
    gpu = "gpu"


@dataclass
class ParallelConfig:
    """Parallel sizes of a role on its pool. The data parallel size is the rest: slots / (tensor × pipeline)."""

    tensor: Count = 1
    pipeline: Count = 1


@dataclass
class TrainParallelConfig(ParallelConfig):
    """Parallel sizes of a role with a model in a training engine."""

    sequence: bool = False  # tensor ranks share out the tokens between the layers that they cut: less memory
    context: Count = 1  # not supported yet
    expert: Count = 1  # not supported yet


@dataclass
class OffloadConfig:
    """State that waits in host memory while no call of its role runs. On a CPU there is nowhere to move it."""

    weights: bool = False
    optimizer: bool = False  # master weights, moments and the memory of gradients


@dataclass
class ModelConfig:
    """Hugging Face folder (config.json, safetensors, tokenizer)."""

    path: str = MISSING  # `~` is the home folder, as in all paths here
    dtype: DType = DType.float32

    def __post_init__(self) -> None:
        self.path = expanduser(self.path)


@dataclass
class OptimizerConfig:
    """AdamW with a warm-up and one of three decays. A gradient that is not finite skips its step."""

    lr: NotNegative = 1e-4  # 0: every step is taken and nothing is learned
    min_lr: NotNegative = 0.0
    warmup_steps: NotNegativeInt = 0
    decay: Decay = Decay.constant
    beta1: Annotated[float, Bounds(at_least=0, less_than=1)] = 0.9
    beta2: Annotated[float, Bounds(at_least=0, less_than=1)] = 0.95
    eps: Annotated[float, Bounds(at_least=1e-37)] = 1e-8  # what is smaller may be 0 in float32, and 0 / 0 no update
    weight_decay: NotNegative = 0.0
    clip_grad: NotNegative = 1.0  # the largest norm of the whole model's gradient; 0: any
    distributed: bool = False  # data parallel ranks share out master weights, moments and updates (ZeRO 1)


@dataclass
class TrainedRoleConfig:
    """Settings of every role with a model in a training engine."""

    worker: str = MISSING  # the registered name of the worker class
    engine: str = "megatron"  # the registered name of the training engine
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: TrainParallelConfig = field(default_factory=TrainParallelConfig)
    max_tokens_per_rank: Count = 8192  # tokens of one micro-batch on one data-parallel rank
    recompute: Recompute = Recompute.none
    offload: OffloadConfig = field(default_factory=OffloadConfig)


@dataclass
class ActorConfig(TrainedRoleConfig):
    """Policy: it generates, scores and learns."""

    worker: str = "actor"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class CriticConfig(TrainedRoleConfig):
    """Value function, started from `model.path` with a fresh scalar head."""

    worker: str = "critic"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class ReferenceConfig(TrainedRoleConfig):
    """Frozen policy that the KL penalty measures from."""

    worker: str = "reference"


@dataclass
class RewardConfig(TrainedRoleConfig):
    """Grader of every response; or, with `worker: model`, a reward model, while the grader validates."""

    worker: str = "reward"
    grader: str = MISSING  # the registered name of the grader
    right_grade: Annotated[float, Bounds(because="a grader may give any number")] = 1.0  # what is as good is right
    max_failed_share: Level = 0.0  # of a step's grades that may fail; 0: the first ends the run
    model: ModelConfig = field(default_factory=lambda: ModelConfig(path=""))  # of the reward model


@dataclass
class CostConfig(TrainedRoleConfig):
    """Grader of what responses should not be; or, with `worker: cost_model`, a model of it."""

    worker: str = "cost"
    grader: str = ""  # the registered name of the grader; its grade is the cost
    max_failed_share: Level = 0.0  # as that of `reward`
    model: ModelConfig = field(default_factory=lambda: ModelConfig(path=""))  # of the cost model


@dataclass
class CostCriticConfig(CriticConfig):
    """Value function of costs, started from `model.path` with a fresh scalar head."""

    worker: str = "cost_critic"


@dataclass
class RewardModelConfig(TrainedRoleConfig):
    """Reward or cost model that learns, started from `model.path`: from a language model with a fresh score head."""

    worker: str = "reward_model"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class RolloutConfig:
    """Generation: in the actor's processes, or on a pool of its own (`placement.roles.rollout`)."""

    engine: str = "vllm"  # the registered name of the generation engine
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    temperature: Annotated[float, Bounds(at_least=0.01, at_most=2)] = 1.0  # vLLM's; validation is greedy anyway
    top_p: Share = 1.0
    top_k: Annotated[int, Bounds(at_least=1, also={-1: "all tokens"})] = -1
    stop: list[str] = field(default_factory=list)  # strings that end a response; they are part of it
    stop_token_ids: list[NotNegativeInt] = field(default_factory=list)  # beside the model's own end
    vocabulary: NotNegativeInt = 0  # only ids below it are sampled; 0: all that each model of the run has
    max_response_tokens: Count = 64
    max_sequence_tokens: Annotated[int, Bounds(at_least=2)] = 128  # prompt and response together
    max_concurrent_rows: Count = 256  # rows that one replica decodes together
    kv_cache_gib: Annotated[float, Bounds(more_than=0, at_most=2**20)] = 1.0  # a replica's cache on a CPU
    gpu_memory_fraction: Share = 0.4  # of a GPU's memory, for vLLM in all
    enforce_eager: bool = True  # no compilation, no CUDA graphs
    resharding: Resharding = Resharding.hybrid
    verify_refit: bool = False  # compare checksums of generation's weights with training's after every refit


@dataclass
class PlacementConfig:
    """Placement of roles on pools of slots. A slot is one process: one GPU, or one thread of a CPU."""

    pools: dict[str, Count] = field(default_factory=dict)  # name -> slots; empty here, as YAML can only add to it
    # role -> pool; a role left out goes to the first, rollout to the actor's
    roles: dict[str, str] = field(default_factory=dict)
    device: Device = Device.auto  # of slots with models


@dataclass
class TaskConfig:
    """Source of prompts."""

    name: str = MISSING  # the registered name of the task
    options: dict[str, Any] = field(default_factory=dict)  # what that task's constructor takes
    too_long: TooLong = TooLong.error  # of a row that does not fit rollout.max_sequence_tokens
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # variables of it, as enable_thinking


@dataclass
class AdvantageConfig:
    """Advantage estimator and its options."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ComponentConfig:
    """Registered component that may be left out, and its options."""

    name: str = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PolicyLossConfig:
    """Policy loss, and how its tokens are averaged."""

    name: str = "ppo_clip"  # or gspo, cispo, pg
    options: dict[str, Any] = field(default_factory=dict)  # what that loss takes: clip_low, clip_high, ...
    aggregate: str = "token_mean"  # or sequence_mean, or fixed_length_mean
    correction: ComponentConfig = field(
        default_factory=lambda: ComponentConfig("auto")
    )  # of generation's log-probs against training's; auto: token_truncated in bfloat16, none in float32
    entropy_coef: Annotated[float, Bounds(because="below 0 it holds the entropy down")] = 0.0
    kl_coef: NotNegative = 0.0  # of the KL to the reference inside the loss
    kl_estimator: str = "k3"


@dataclass
class ValueLossConfig:
    """Critic's loss: squared error, clipped around the old values."""

    clip: Positive = 0.2


@dataclass
class PreferenceLossConfig:
    """Loss of DPO."""

    beta: Positive = 0.1  # how strongly the policy is held to the reference


@dataclass
class LagrangeConfig:
    """Multiplier of a limit on the mean cost of responses (Safe-RLHF)."""

    limit: Annotated[float, Bounds(because="costs have the scale of their grader")] = 0.0  # of the mean cost
    multiplier: Positive = 1.0  # to begin with
    lr: NotNegative = 0.1  # of its logarithm; 0: the multiplier stays what it is
    max: Positive = 100.0  # it is held here
    min: Positive = 1e-3  # and here: from nearly nothing it would not grow again


@dataclass
class AlgorithmConfig:
    """Algorithm, its data sizes and its components."""

    name: str = MISSING  # of the flow: the registered name of the algorithm
    recipe: str = ""  # what these settings of that flow are called, if they have a name of their own
    paper: str = ""  # where the recipe comes from
    prompts_per_step: Count = 64
    samples_per_prompt: Count = 1
    minibatches: Count = 1  # optimizer steps per pass over a step's rows
    epochs: Count = 1  # passes over a step's rows
    reward_kl_coef: NotNegative = 0.0  # of the KL to the reference, taken off the token rewards
    reward_kl_estimator: str = "k1"
    reward_kl_control: ComponentConfig = field(
        default_factory=lambda: ComponentConfig("fixed")
    )  # how that coefficient moves: or adaptive
    reward_shaping: ComponentConfig = field(
        default_factory=ComponentConfig
    )  # of a row's reward, before the KL is taken off: overlong
    rollout_filter: ComponentConfig = field(
        default_factory=ComponentConfig
    )  # of rows to learn from: unequal_groups, overlong
    max_draws: Count = 10  # of prompts for one step, where a step samples until enough of them teach something
    critic_warmup_steps: NotNegativeInt = 0  # steps in which only the critic learns
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    policy_loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    value_loss: ValueLossConfig = field(default_factory=ValueLossConfig)
    pair_loss: str = "bradley_terry"  # of the scores that a reward model gives to pairs: or signed_cost
    preference_loss: PreferenceLossConfig = field(default_factory=PreferenceLossConfig)
    lagrange: LagrangeConfig = field(default_factory=LagrangeConfig)


@dataclass
class TrainerConfig:
    """Loop around the algorithm's step."""

    steps: NotNegativeInt = 100
    schedule: str = "sync"  # the order of a step's parts, by name
    validate_every: NotNegativeInt = 0  # steps between validations; 0: only before and after
    validation_prompts: Count = 512
    stop_at_accuracy: Annotated[float, Bounds(at_least=0, at_most=1)] | None = None  # end once a validation reaches it
    log_rollouts_every: NotNegativeInt = 10  # steps between the steps whose rows are written out; 0: never
    metric_sinks: list[str] = field(default_factory=lambda: ["jsonl", "live"])  # where metrics go; see docs/metrics.md
    print_every_step: bool = False  # a line for every step, also on a terminal
    collective_timeout_s: Seconds = 600.0
    save_every: NotNegativeInt = 0  # steps between checkpoints, and one at the end; 0: none
    keep_last: Count = 2  # checkpoints that are kept
    resume: str = "auto"  # auto: from this run's newest checkpoint, if any; never; or the path of a checkpoint

    def __post_init__(self) -> None:
        self.resume = expanduser(self.resume)


@dataclass
class RunConfig:
    """Name, place and seed of a run."""

    name: str = MISSING
    root: str = "runs"
    seed: Annotated[int, Bounds(at_least=0, less_than=2**63)] = 1

    def __post_init__(self) -> None:
        self.root = expanduser(self.root)


@dataclass
class RayClusterConfig:
    """`local` starts a cluster for this run; `auto` or an address joins one and never stops it."""

    address: str = "local"
    start_timeout_s: Seconds = 600.0  # until processes are there, and a role is built


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
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    plugins: list[str] = field(default_factory=list)  # modules imported first, on the controller and on every rank


SECTIONS = frozenset(entry.name for entry in fields(Config))
"""The top-level keys of the settings."""
