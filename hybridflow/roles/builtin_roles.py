"""The paper's roles (HybridFlow, section 4.1): actor, critic, reference and reward; and a reward model to be trained.

Columns are named in docstrings with their shapes: R rows; a ragged column over responses has one value a response
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from hybridflow.config.schema import Config
from hybridflow.dispatch import RowsT, Streamed, using
from hybridflow.dispatch.known_columns import GROUP, SHARED_PREFIXES, kinds
from hybridflow.dispatch.method import Columns
from hybridflow.losses.loss import policy_reads, reads_of
from hybridflow.roles.role import Role, roles
from hybridflow.tasks.chosen_graders import asked
from hybridflow.tasks.grader_registry import graders
from hybridflow.tasks.grades import GRADES

PROMPT = kinds("prompt_ids")
NAMES = ("stream_id", "sample_id")  # a worker of a user's may go by what names a question
RESPONSE = kinds("prompt_ids", "response_ids")
LOSS_MASK = kinds("loss_mask")
TEMPERATURE = kinds("sampling_temperature")
SAMPLED = kinds("response_ids", "rollout_log_probs", "finish_reason", "truncated", "weight_version") | TEMPERATURE
GENERATE = ("generate_sequences", "stream_sequences")
CONVERSED = kinds("loss_mask", "turn_rewards", "turn_index", "turns", "environment_failure")  # with an environment
QUESTION = ("answer", "messages", "metadata", "source")  # that an environment is told, beside NAMES
GRADED = kinds("response_ids", "answer")
FAILURE = kinds("environment_failure")  # whose row has no grade, whoever grades
SEEN = (
    "prompt_ids",
    "messages",
    "metadata",
    "source",
    "finish_reason",
    "truncated",
    "sample_id",
    "turn_rewards",
    "environment_failure",
)  # by graders of rows
PAIR = RESPONSE | kinds("rejected_ids")
PAIR_MASKS = LOSS_MASK | kinds("rejected_loss_mask")


class SamplingChanges(TypedDict, total=False):
    """Settings of `rollout` that a call of `generate_sequences` may change for itself; see the schema."""

    temperature: float
    top_p: float
    top_k: int
    max_response_tokens: int
    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    vocabulary: int


class TrainedRole(Role[RowsT]):
    """Role that learns, and so has a state to save."""

    @using("one_to_all")
    def save_checkpoint(self, folder: str) -> Any:
        """Write weights, optimizer, schedule and random states to a new folder; every rank writes its part.

        A rank whose disk takes no more may give the DiskError instead of raising it: it is as it was before, and the
        run goes on if `trainer.full_disk` says so. The others must not wait for it.
        """
        raise NotImplementedError

    @using("one_to_all")
    def load_checkpoint(self, folder: str) -> Any:
        """Go on from what `save_checkpoint` wrote, under any layout."""
        raise NotImplementedError


class GeneratingRole(Role[RowsT]):
    """Role that samples responses from the policy."""

    @classmethod
    def more_columns(cls, config: Config) -> Mapping[str, Mapping[str, str]]:
        return dict.fromkeys(GENERATE, CONVERSED) if config.environment.name else {}

    @classmethod
    def more_read(cls, config: Config) -> Mapping[str, Columns]:
        return dict.fromkeys(GENERATE, QUESTION) if config.environment.name else {}

    @using("3d_all_micro_dp", needs=PROMPT, optional=NAMES, gives=SAMPLED, samples=True)
    def generate_sequences(self, prompts: RowsT, *, step: int = 0, **sampling: Unpack[SamplingChanges]) -> RowsT:
        """Sample one response a row with the newest weights, as `rollout` says but for `sampling`.

        The random stream of a row is its own: two rows never share one, also where a prompt comes twice. It depends on
        the run's seed and step, on how many calls that sample came before this one in the step and on the row's place:
        that of its prompt in the order of the run, which copy it is. It may depend on `step` besides, a number of your
        choice, and where rows come with a column `stream_id` on that in place of call and place.

        `temperature=0.0` takes the likeliest tokens.

        Gives `response_ids` (ragged int), `rollout_log_probs` (ragged float, natural logarithm, of each sampled token
        under the distribution it was drawn from), `finish_reason` ([R] strings: `end`, the model's own, `stop`, one of
        `stop` or `stop_token_ids`, or `length`, it reached `max_response_tokens` before either), `truncated` ([R] bool:
        that reason is `length`), `weight_version` (ragged int, of each row runs [K, 2] of a version and the number of
        tokens that it sampled; `hybridflow.batch.weight_versions`) and `sampling_temperature` ([R] float, at which the
        row's log-probs are taken here and wherever it is learned from; of the likeliest tokens 1).

        With an `environment`, a response is all of a conversation after its prompt, `finish_reason` may be `turns` (of
        the policy, it has had `max_turns`) or `failed` too, and there are `loss_mask` (0 where the environment speaks,
        and everywhere if it failed), `turn_rewards` (ragged float, of a turn at its last token), `turn_index`
        (ragged int, the number of the turn that a token is of, or answers), `turns` ([R] int) and `environment_failure`
        ([R] strings, "" if it did not fail). What the environment says is of the `weight_version` -1.

        Raises ValueError for a prompt that leaves less than `max_response_tokens` of `rollout.max_sequence_tokens`, and
        for a temperature between 0 and the least that vLLM samples at.
        """
        raise NotImplementedError

    @using("3d_all_micro_dp", needs=PROMPT, optional=NAMES, gives=SAMPLED, streams=True, samples=True)
    def stream_sequences(
        self, prompts: RowsT, *, step: int = 0, together: int = 1, **sampling: Unpack[SamplingChanges]
    ) -> Streamed[RowsT]:
        """Yield the rows of `generate_sequences` as soon as they are finished.

        Gives, for rows that finished together, their numbers among `prompts` and the columns of `generate_sequences`.

        Args:
            together: a replica waits for so many, but for its last ones: each time costs the controller a message.
        """
        raise NotImplementedError

    @using("one_to_all")
    def journal_rollouts(self, folder: str, number: int, earlier: Mapping[str, int]) -> Any:
        """Write finished rows to a journal from now on, and take those that are in an earlier one out of it.

        A worker that does so returns how many rows it found there. One that does not makes every row anew.

        Args:
            folder: for this rank's file, and with the earlier ones.
            number: of the file; none of the earlier ones has it.
            earlier: by name, the bytes of each of these that are to be read.
        """


class AdvantageRole(Role[RowsT]):
    """Estimates how much better tokens were than expected. It needs no model, only whole groups on each rank."""

    @using("dp_proto", gives=kinds("advantages", "returns"))
    def compute_advantage(self, rollout: RowsT, *, kl_coef: float) -> RowsT:
        """Return `advantages` and `returns` (ragged float), by the algorithm's advantage estimator. No model is run.

        The rewards are shaped first, and `kl_coef` times the KL to the reference is taken off those of tokens. A row
        with a grade that has failed is no member of its group, nor of the batch; it gets 0.
        """
        raise NotImplementedError

    @using("dp_proto", gives=kinds("advantages", "returns", "cost_returns"))
    def compute_constrained_advantage(self, rollout: RowsT, *, kl_coef: float, multiplier: float) -> RowsT:
        """Estimate as `compute_advantage`, of reward less `multiplier` times cost; and `cost_returns` (ragged float).

        Reads `costs` and, if the estimator reads values, `cost_values` too.
        """
        raise NotImplementedError


@roles.register("actor")
class ActorRole(AdvantageRole[RowsT], GeneratingRole[RowsT], TrainedRole[RowsT]):
    """Policy: it samples, scores and learns."""

    @using("one_to_all")
    def sync_weights(self) -> Any:
        """Give generation the newest weights, unless it has them.

        A schedule calls it, which so decides when weights travel. A call that samples does so too where it finds older
        ones. A worker that samples with the very weights that it trains has nothing to do here.
        """

    @using(
        "3d_proto",
        needs=RESPONSE | kinds("rollout_log_probs", "weight_version"),
        optional=TEMPERATURE | LOSS_MASK | SHARED_PREFIXES,
        gives=kinds("old_log_probs"),
    )
    def compute_log_prob(self, rollout: RowsT) -> RowsT:
        """Return `old_log_probs` (ragged float): log-probs of the response tokens under the training engine's weights.

        They are those of the distribution that was sampled from: at `sampling_temperature`, which rows that lack it
        have from `rollout.temperature`. The reference's and those of `update_actor` are too.
        """
        raise NotImplementedError

    @using("dp_tokens", needs=policy_reads())
    def update_policy(self, rows: RowsT, loss: str, **options: Any) -> None:
        """Take one optimizer step on the registered loss of that name, with these options of its own.

        The loss says which columns it needs (`hybridflow.losses.loss`). Rows with a grade that has failed are left out.
        Raises HybridFlowError for a name that nobody registers.

        Rows that `generate_sequences` made may come without `old_log_probs`, for a loss that looks at a micro-batch at
        a time: it is given those of this update, before its step. So they must be the first that are learned from since
        they were sampled.
        """
        raise NotImplementedError

    @using("dp_tokens", needs=policy_reads("policy"))
    def update_actor(self, rollout: RowsT) -> None:
        """Take one optimizer step on the policy loss of these rows: `update_policy(rollout, "policy")`."""
        self.update_policy(rollout, "policy")

    @using(
        "dp_tokens",
        needs=kinds("response_ids"),
        optional=LOSS_MASK | dict.fromkeys(GRADES, ""),
        gives=kinds("old_log_probs"),
    )
    def recall_log_probs(self, rows: RowsT) -> RowsT:
        """Return the `old_log_probs` (ragged float) that the update before this call took from its own forward pass.

        No model is run. They are those of the rows of that update, which were shared out to ranks in the same way; of a
        row that it did not learn from, and of any other rows, a row of the column is empty.
        """
        raise NotImplementedError

    @using("3d_proto", needs=reads_of("dpo"))
    def update_preferred(self, pairs: RowsT) -> None:
        """Take one optimizer step on the mean DPO loss of these pairs: `update_policy(pairs, "dpo")`."""
        self.update_policy(pairs, "dpo")

    @using("dp_tokens", needs=reads_of("supervised"))
    def update_supervised(self, examples: RowsT) -> None:
        """Take one optimizer step on -log π of the response tokens: `update_policy(examples, "supervised")`."""
        self.update_policy(examples, "supervised")

    @using("one_to_all")
    def save_model(self, folder: str) -> Any:
        """Write the weights as a Hugging Face folder."""
        raise NotImplementedError


def is_policy(role: str) -> bool:
    """Tell whether a role samples, scores and learns: the actor, or another policy that a user registers."""
    return role in roles and issubclass(roles.get(role), ActorRole)


def is_second_policy(role: str) -> bool:
    """Tell whether a role is a policy beside the actor."""
    return role != "actor" and is_policy(role)


@roles.register("critic")
class CriticRole(TrainedRole[RowsT]):
    """Value function of rewards."""

    @using("dp_tokens", needs=RESPONSE, optional=LOSS_MASK | SHARED_PREFIXES, gives=kinds("values"))
    def compute_values(self, rollout: RowsT) -> RowsT:
        """Return `values` (ragged float): the value of the state before each response token."""
        raise NotImplementedError

    @using("dp_tokens", needs=reads_of("value"))
    def update_critic(self, rollout: RowsT) -> None:
        """Take an optimizer step on the value loss of these rows, but for those with a grade that has failed."""
        raise NotImplementedError


@roles.register("reference")
class ReferenceRole(Role[RowsT]):
    """Frozen policy."""

    @using(
        "dp_tokens", needs=RESPONSE, optional=TEMPERATURE | LOSS_MASK | SHARED_PREFIXES, gives=kinds("ref_log_probs")
    )
    def compute_ref_log_prob(self, rollout: RowsT) -> RowsT:
        """Return `ref_log_probs` (ragged float): log-probs of the response tokens under the frozen weights.

        They are taken at the temperature of `ActorRole.compute_log_prob`.
        """
        raise NotImplementedError

    @using("3d_proto", needs=PAIR, optional=PAIR_MASKS | GROUP, gives=kinds("ref_chosen", "ref_rejected"))
    def compute_ref_pair(self, pairs: RowsT) -> RowsT:
        """Return `ref_chosen` and `ref_rejected` ([R] float): summed log-probs of both responses of each pair.

        At temperature 1, as `ActorRole.update_preferred` takes the policy's.
        """
        raise NotImplementedError


@roles.register("reward")
class RewardRole(Role[RowsT]):
    """Grader of responses."""

    light = True

    @classmethod
    def more_columns(cls, config: Config) -> Mapping[str, Mapping[str, str]]:
        more = kinds("grades") if config.reward.graders else {}
        if any(graders.gives_token_rewards(name) for name in asked(config.reward)):
            more |= kinds("token_rewards")
        return {"compute_reward": more} if more else {}

    @using("dp_proto", needs=GRADED, optional=SEEN, gives=kinds("rewards"))
    def compute_reward(self, rollout: RowsT) -> RowsT:
        """Return `rewards` ([R] float): the grade of each response; of several graders the weighted sum.

        Of `reward.graders` it gives `grades` too ([R, G] float, in their order), and where a grader has values of
        tokens or steps `token_rewards` (ragged float).
        """
        raise NotImplementedError

    @using("dp_proto", needs=kinds("response_ids"), optional=("source", "rewards"), gives=kinds("answer_key"))
    def compute_answer_key(self, answers: RowsT) -> RowsT:
        """Return `answer_key` ([R] strings): what each response comes to; equal ones are one vote of a majority.

        A response whose grade has failed, if `rewards` are known, is its own.
        """
        raise NotImplementedError

    @using("dp_proto", needs=GRADED, optional=SEEN, gives=kinds("baseline_rewards", "baseline_lengths"))
    def compute_baseline(self, greedy: RowsT) -> RowsT:
        """Return `baseline_rewards` ([R] float): the same of responses that others are to be compared with.

        And `baseline_lengths` ([R] int), their tokens: what shapes rewards may read them.
        """
        raise NotImplementedError

    @using("dp_proto")
    def log_rollouts(self, rollout: RowsT, *, step: int, folder: str) -> None:
        """Append every row as a line of JSON to `folder/rank<i>.jsonl`."""
        raise NotImplementedError


class ModelRewardRole(Role[RowsT]):
    """Reward model: what the role `reward` can do with a model as its worker."""

    @using("dp_tokens", needs=RESPONSE, optional=FAILURE | SHARED_PREFIXES, gives=kinds("rewards"))
    def compute_reward(self, rollout: RowsT) -> RowsT:
        """Return `rewards` ([R] float): the model's score of each row, at its last token."""
        raise NotImplementedError

    @using(
        "dp_tokens",
        needs=RESPONSE,
        optional=FAILURE | SHARED_PREFIXES,
        gives=kinds("baseline_rewards", "baseline_lengths"),
    )
    def compute_baseline(self, greedy: RowsT) -> RowsT:
        """Return `baseline_rewards` ([R] float): the same of responses that others are to be compared with.

        And `baseline_lengths` ([R] int), their tokens: what shapes rewards may read them.
        """
        raise NotImplementedError


class GradedModelRewardRole(ModelRewardRole[RowsT]):
    """Reward model as one of several graders: a model as the worker, with a process that grades beside it."""

    @classmethod
    def more_columns(cls, config: Config) -> Mapping[str, Mapping[str, str]]:
        return RewardRole.more_columns(config)

    @using("dp_tokens", needs=RESPONSE | GRADED, optional=(*SEEN, *SHARED_PREFIXES), gives=kinds("rewards"))
    def compute_reward(self, rollout: RowsT) -> RowsT:
        """Return what `RewardRole.compute_reward` does; the model's score is one of the grades."""
        raise NotImplementedError

    @using(
        "dp_tokens",
        needs=RESPONSE | GRADED,
        optional=(*SEEN, *SHARED_PREFIXES),
        gives=kinds("baseline_rewards", "baseline_lengths"),
    )
    def compute_baseline(self, greedy: RowsT) -> RowsT:
        raise NotImplementedError


@roles.register("reward_model")
class RewardModelRole(TrainedRole[RowsT]):
    """Reward or cost model that learns from preferences. A row is a pair: a chosen and a rejected response."""

    @using("3d_proto", needs=reads_of("pairs"))
    def update_reward_model(self, pairs: RowsT) -> None:
        """Take an optimizer step on the mean `algorithm.pair_loss` of these pairs."""
        raise NotImplementedError

    @using("3d_proto", needs=reads_of("pairs"))
    def compare(self, pairs: RowsT) -> None:
        """Report loss and accuracy of these pairs, and learn nothing."""
        raise NotImplementedError

    @using("one_to_all")
    def save_model(self, folder: str) -> Any:
        """Write the weights as a Hugging Face folder of a sequence classifier with one label."""
        raise NotImplementedError
