"""Settings of the roles: their models, parallel sizes and optimizers, and how responses are generated."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from os.path import expanduser
from typing import Annotated, Any

from omegaconf import MISSING

from hybridflow.bounds import Bounds, Count, Level, NotNegative, NotNegativeInt, Rows, Share
from hybridflow.config.hub_ids import local_folder


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


class Resharding(StrEnum):
    """Method that brings weights from training's layout to generation's. The first is ours, others for comparison."""

    hybrid = "hybrid"  # each rank gathers its generation shard, which contains its training shard
    hybrid_v = "hybrid_v"  # each gathers the whole model; generation's places are neighbors
    full_gather = "full_gather"  # each gathers the whole model; places as in hybrid


class RolloutRecovery(StrEnum):
    """What becomes of rows that were finished when the call that generates them was interrupted."""

    exact = "exact"  # the call is made again whole, so the weights in the end are an undisturbed run's, bit for bit
    durable = "durable"  # they are in a journal, kept byte for byte and not made again; the others are


@dataclass
class ParallelConfig:
    """Parallel sizes of a role on its pool. The data parallel size is the rest: slots / (tensor × pipeline)."""

    tensor: Count = 1  # ranks that share each layer
    pipeline: Count = 1  # stages, of consecutive layers


@dataclass
class TrainParallelConfig(ParallelConfig):
    """Parallel sizes of a role with a model in a training engine."""

    sequence: bool = False  # tensor ranks share out the tokens between the layers that they cut: less memory
    context: Count = 1  # not supported yet
    expert: Count = 1  # not supported yet


@dataclass
class OffloadConfig:
    """State that waits in host memory while no call of its role runs. On a CPU there is nowhere to move it."""

    weights: bool = False  # of the model, as it trains or scores
    optimizer: bool = False  # master weights, moments and the memory of gradients


@dataclass
class ModelConfig:
    """Hugging Face folder (config.json, safetensors, tokenizer), or a model of the hub."""

    # of a Hugging Face folder, or a model of the hub as owner/name@revision; `~` is the home folder, as in all paths
    path: str = MISSING
    dtype: DType = DType.float32  # number format of weights and activations

    def __post_init__(self) -> None:
        self.path = local_folder(expanduser(self.path))


@dataclass
class OptimizerConfig:
    """AdamW with a warm-up and one of three decays. A gradient that is not finite skips its step."""

    lr: NotNegative = 1e-4  # the learning rate; 0: every step is taken and nothing is learned
    min_lr: NotNegative = 0.0  # where the decay ends
    warmup_steps: NotNegativeInt = 0  # updates in which the learning rate rises from 0
    decay: Decay = Decay.constant  # shape of the learning rate after its warm-up, over the updates of the run
    beta1: Annotated[float, Bounds(at_least=0, less_than=1)] = 0.9  # decay of the mean of gradients
    beta2: Annotated[float, Bounds(at_least=0, less_than=1)] = 0.95  # decay of the mean of their squares
    # added to the root of the mean square; less may be 0 in float32
    eps: Annotated[float, Bounds(at_least=1e-37)] = 1e-8
    weight_decay: NotNegative = 0.0  # of the weights, apart from the gradient (decoupled)
    clip_grad: NotNegative = 1.0  # the largest norm of the whole model's gradient; 0: any
    distributed: bool = False  # data parallel ranks share out master weights, moments and updates (ZeRO 1)


@dataclass
class TrainedRoleConfig:
    """Settings of every role with a model in a training engine."""

    worker: str = MISSING  # the registered name of the worker class
    engine: str = "megatron"  # the registered name of the training engine
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: TrainParallelConfig = field(default_factory=TrainParallelConfig)
    max_tokens_per_rank: Count = 8192  # tokens of one micro-batch on one data-parallel rank; shared ones count once
    recompute: Recompute = Recompute.none  # activations that are computed again in the backward pass, to save memory
    offload: OffloadConfig = field(default_factory=OffloadConfig)


@dataclass
class ActorConfig(TrainedRoleConfig):
    """Policy: it generates, scores and learns."""

    worker: str = "actor"  # the registered name of the worker class
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class CriticConfig(TrainedRoleConfig):
    """Value function, started from `model.path` with a fresh scalar head."""

    worker: str = "critic"  # the registered name of the worker class
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class ReferenceConfig(TrainedRoleConfig):
    """Frozen policy that the KL penalty measures from."""

    worker: str = "reference"  # the registered name of the worker class


Weight = Annotated[float, Bounds(because="below 0 a grade is held against a response")]
Deadline = Annotated[float, Bounds(at_least=0.01, at_most=86_400)]


@dataclass
class RewardConfig(TrainedRoleConfig):
    """Grader of every response; or, with `worker: model`, a reward model, while the grader validates.

    A reward model is one of several graders if `graders` has a weight for it, as `reward_model`.
    """

    worker: str = "reward"  # the registered name of the worker class; model: a reward model
    grader: str = MISSING  # the registered name of the grader
    graders: dict[str, Weight] = field(default_factory=dict)  # several, with their weights in the sum; in its place
    grader_options: dict[str, Any] = field(default_factory=dict)  # by grader, what it takes
    # by grader, the sources whose rows it grades; one that is not named here grades all rows
    grader_sources: dict[str, list[str]] = field(default_factory=dict)
    accuracy_grader: str = ""  # of several, the one that says what is right; "": `grader` if it is one of them
    # a grade that is as good, or better, is right: accuracy
    right_grade: Annotated[float, Bounds(because="a grader may give any number")] = 1.0
    max_failed_share: Level = 0.0  # share of a step's grades that may fail; 0: the first ends the run
    grader_deadline_s: Deadline = 60.0  # that the grader may take for a row, after which its grade has failed
    grader_concurrency: Rows = 16  # rows that an `async` grader grades at the same time, on each rank
    model: ModelConfig = field(default_factory=lambda: ModelConfig(path=""))  # of the reward model


@dataclass
class CostConfig(TrainedRoleConfig):
    """Grader of what responses should not be; or, with `worker: cost_model`, a model of it."""

    worker: str = "cost"  # the registered name of the worker class; cost_model: a cost model
    grader: str = ""  # the registered name of the grader; its grade is the cost
    graders: dict[str, Weight] = field(default_factory=dict)  # as reward.graders
    grader_options: dict[str, Any] = field(default_factory=dict)  # as reward.grader_options
    grader_sources: dict[str, list[str]] = field(default_factory=dict)  # as reward.grader_sources; others cost nothing
    max_failed_share: Level = 0.0  # as reward.max_failed_share
    grader_deadline_s: Deadline = 60.0  # as reward.grader_deadline_s
    grader_concurrency: Rows = 16  # as reward.grader_concurrency
    model: ModelConfig = field(default_factory=lambda: ModelConfig(path=""))  # of the cost model


@dataclass
class CostCriticConfig(CriticConfig):
    """Value function of costs, started from `model.path` with a fresh scalar head."""

    worker: str = "cost_critic"  # the registered name of the worker class


@dataclass
class RewardModelConfig(TrainedRoleConfig):
    """Reward or cost model that learns, started from `model.path`: from a language model with a fresh score head."""

    worker: str = "reward_model"  # the registered name of the worker class
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class EnvironmentConfig:
    """Other side of rollouts that are conversations. Without a name, a rollout is one response."""

    name: str = ""  # the registered name of the environment
    options: dict[str, Any] = field(default_factory=dict)  # what its constructor takes
    max_turns: Count = 8  # of the policy, in a conversation
    max_turn_tokens: NotNegativeInt = 0  # of a turn; 0: what rollout.max_response_tokens leaves, which is of them all
    step_deadline_s: Deadline = 60.0  # that the environment may take for an answer, after which it has failed
    processes: Annotated[int, Bounds(at_least=1, at_most=1024)] = 1  # that environments run in, beside each replica
    keep_turns: bool = False  # go on from turns as they were written also where the chat template would change them
    # turns begin when all conversations have been answered: slower, and a run that is repeated has the same bits
    in_step: bool = False


@dataclass
class LogProbDiffConfig:
    """Largest mean difference of the log-probs of rollout and training, by the actor's number format."""

    float32: Annotated[float, Bounds(more_than=0, also={0: "any"})] = 1e-3  # nats a token
    bfloat16: Annotated[float, Bounds(more_than=0, also={0: "any"})] = 0.2  # nats a token


@dataclass
class RolloutConfig:
    """Generation: in the actor's processes, or on a pool of its own (`placement.roles.rollout`)."""

    engine: str = "vllm"  # the registered name of the generation engine
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    temperature: Annotated[float, Bounds(at_least=0.01, at_most=2)] = 1.0  # of training's sampling, in vLLM's bounds
    top_p: Share = 1.0  # the likeliest tokens with this share of the probability are sampled from
    # only so many of the likeliest tokens are sampled from
    top_k: Annotated[int, Bounds(at_least=1, also={-1: "all tokens"})] = -1
    stop: list[str] = field(default_factory=list)  # strings that end a response; they are part of it
    stop_token_ids: list[NotNegativeInt] = field(default_factory=list)  # that end it too, beside the model's own end
    vocabulary: NotNegativeInt = 0  # only ids below it are sampled; 0: all that each model of the run has
    max_response_tokens: Count = 64  # of a response, which is truncated there
    max_sequence_tokens: Annotated[int, Bounds(at_least=2)] = 128  # prompt and response together
    max_concurrent_rows: Rows = 256  # rows that one replica decodes together
    kv_cache_gib: Annotated[float, Bounds(more_than=0, at_most=2**20)] = 1.0  # a replica's cache on a CPU
    gpu_memory_fraction: Share = 0.4  # of a GPU's memory, for vLLM in all
    enforce_eager: bool = True  # no compilation, no CUDA graphs
    # where rows go on with new weights (trainer.partial): keys and values that they have stay those of the older ones,
    # which is faster; else they are computed again
    keep_kv_cache: bool = False
    resharding: Resharding = Resharding.hybrid  # the method that brings weights from training's layout to generation's
    verify_refit: bool = True  # compare what generation computes with and what training gave, bit for bit
    # what becomes of finished rows when a process is lost before the others are: they are made again, or kept
    recovery: RolloutRecovery = RolloutRecovery.exact
    # of what the newest weights sampled; beyond it the run stops before it trains on that
    max_log_prob_diff: LogProbDiffConfig = field(default_factory=LogProbDiffConfig)
