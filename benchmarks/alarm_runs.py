"""Runs that alarms are set and tried on: some to set thresholds on, others that are well, others with a pathology."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 40
SMALL = (
    "algorithm.prompts_per_step=32",
    "trainer.validate_every=0",
    "trainer.validation_prompts=8",
    "trainer.stop_at_accuracy=null",
    "trainer.log_rollouts_every=0",
    "trainer.timeline_every=0",
    "rollout.kv_cache_gib=0.05",
    "actor.parallel.tensor=1",
)
ONE_RANK, TWO_RANKS = "placement.pools.main=1", "placement.pools.main=2"
ASYNC = ("placement=rollout_pool", "trainer.schedule=async")
NO_GROUPS = "algorithm.prompts_per_step=256"  # of algorithms with one sample a prompt
PLUGIN = "plugins=[benchmarks.alarm_plugin]"


@dataclass(frozen=True)
class AlarmRun:
    """Run to record.

    Attributes:
        kind: `setting`, `healthy` or `planted`.
        settings: of the command line, after those that all have.
        subcommand: of hybridflow.
        pathology: what the plugin does, as HYBRIDFLOW_PATHOLOGY.
        alarm: the cause that is planted.
    """

    kind: str
    name: str
    settings: tuple[str, ...]
    subcommand: str = "train"
    pathology: str = ""
    alarm: str = ""

    def arguments(self) -> tuple[str, ...]:
        """Return what follows the subcommand, but for where the run and its model are; a later setting wins."""
        own = {setting.partition("=")[0]: setting for setting in (*SMALL, *self.settings)}
        return tuple(sorted(own.values(), key=lambda setting: not setting.startswith("experiment=")))


def _learns(kind: str, algorithm: str, seed: int, *more: str) -> AlarmRun:
    settings = ("experiment=addition", f"algorithm={algorithm}", ONE_RANK, f"trainer.steps={STEPS}", *more)
    return AlarmRun(kind, f"{algorithm}_{seed}", (*settings, f"run.seed={seed}"))


def _planted(alarm: str, name: str, *more: str, pathology: str = "", steps: int = 25) -> AlarmRun:
    settings = ("experiment=addition", "algorithm=grpo", ONE_RANK, f"trainer.steps={steps}", "run.seed=5", PLUGIN)
    return AlarmRun("planted", name, (*settings, *more), pathology=pathology, alarm=alarm)


SETTING = (
    _learns("setting", "ppo", 21, NO_GROUPS, TWO_RANKS),
    _learns("setting", "grpo", 21, TWO_RANKS),
    _learns("setting", "dapo", 21),
    _learns("setting", "grpo", 22, "trainer.steps=100", "actor.optimizer.lr=1e-3"),
)
HEALTHY = (
    *(_learns("healthy", "ppo", seed, NO_GROUPS, TWO_RANKS) for seed in (1, 2, 3)),
    *(_learns("healthy", "grpo", seed, TWO_RANKS) for seed in (1, 2, 3)),
    *(_learns("healthy", name, 1) for name in ("dapo", "dr_grpo", "gspo", "cispo", "rloo")),
    _learns("healthy", "reinforce_plus_plus_baseline", 1),
    *(_learns("healthy", name, 1, NO_GROUPS) for name in ("reinforce_plus_plus", "remax", "safe_rlhf")),
    _learns("healthy", "gdpo", 1, "reward.graders={exact: 1.0, last_number: 0.5}"),
    _learns("healthy", "grpo", 4, *ASYNC, "trainer.max_staleness=4"),
    _learns("healthy", "grpo", 5, "algorithm.prompts_per_step=1", "algorithm.samples_per_prompt=4", "trainer.steps=80"),
    AlarmRun("healthy", "dpo_1", ("experiment=addition_dpo", NO_GROUPS, ONE_RANK, f"trainer.steps={STEPS}")),
    AlarmRun("healthy", "sft_1", ("experiment=addition_warmup", NO_GROUPS, ONE_RANK, f"trainer.steps={STEPS}"), "sft"),
    AlarmRun(
        "healthy",
        "reward_model_1",
        ("experiment=addition_reward", NO_GROUPS, ONE_RANK, f"trainer.steps={STEPS}"),
        "train-reward",
    ),
    AlarmRun(
        "healthy",
        "cost_model_1",
        ("experiment=addition_cost", NO_GROUPS, ONE_RANK, f"trainer.steps={STEPS}"),
        "train-cost",
    ),
)
LONG = ("rollout.max_response_tokens=24", "rollout.max_sequence_tokens=48")
PLANTED = (
    _planted("stale_weights", "held_back", "actor.optimizer.lr=1e-3", "rollout.max_log_prob_diff.float32=0",
             pathology="held_back"),
    _planted("log_probs_apart", "coarse", "rollout.max_log_prob_diff.float32=0", pathology="coarse"),
    _planted("dead_reward", "zero", "reward.grader=planted_zero"),
    _planted("dead_reward", "failing", "reward.grader=planted_failing", "reward.max_failed_share=1"),
    _planted("all_groups_alike", "by_prompt", "reward.grader=planted_by_prompt"),
    _planted("entropy_collapse", "no_entropy", "algorithm.policy_loss.entropy_coef=-0.1", "actor.optimizer.lr=1e-3"),
    _planted("length_collapse", "short", "reward.grader=planted_short", "actor.optimizer.lr=1e-3"),
    _planted("length_explosion", "long", "reward.grader=planted_long", "actor.optimizer.lr=1e-3", *LONG),
    _planted("kl_blow_up", "huge_steps", "algorithm.policy_loss.kl_coef=0", "actor.optimizer.lr=0.05"),
    _planted("truncation", "cut_off", "rollout.max_response_tokens=2"),
    _planted("slow_grader", "slow", "reward.grader=planted_slow", steps=15),
    _planted("straggling_rank", "slow_rank", TWO_RANKS, pathology="slow_rank", steps=15),
    _planted("token_imbalance", "uneven", TWO_RANKS, pathology="uneven", steps=15),
    _planted("memory_growth", "keeps_memory", pathology="keeps_memory", steps=32),
    _planted("memory_growth", "leak", "reward.grader=planted_leak", steps=32),
    _planted("non_finite", "not_finite", pathology="not_finite", steps=15),
    _planted("truncation", "async_cut_off", *ASYNC, TWO_RANKS, "rollout.max_response_tokens=2", steps=15),
    _planted("kl_blow_up", "dapo_huge", "algorithm=dapo", "algorithm.minibatches=1", "actor.optimizer.lr=0.01",
             steps=15),
    _planted("entropy_explosion", "much_entropy", "algorithm.policy_loss.entropy_coef=1", "actor.optimizer.lr=1e-3"),
    _planted("greedy_sampling", "cold", "rollout.temperature=0.05", steps=15),
    _planted("frozen_weights", "no_rate", "actor.optimizer.lr=0", steps=12),
    _planted("frozen_weights", "no_gradient", pathology="no_gradient", steps=20),
    _planted("exploding_gradients", "million", "algorithm=dr_grpo", "reward.grader=planted_million", steps=12),
    _planted("falling_reward", "upside_down", pathology="upside_down", steps=40),
)  # fmt: skip
RUNS = {f"{run.kind}/{run.name}": run for run in (*SETTING, *HEALTHY, *PLANTED)}
