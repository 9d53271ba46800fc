"""Impossible combinations. Each case changes one thing in a configuration that is sound."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.config import Config, compose
from hybridflow.config.model_roles import MODEL_ROLES
from hybridflow.config.schema import Resharding
from hybridflow.models import Head, ModelShape
from hybridflow.parallel.layout import Layout
from hybridflow.placement import problems as placement_problems
from hybridflow.placement import resolve
from hybridflow.preflight import combination_checks, model_checks
from hybridflow.preflight.model_checks import Facts
from hybridflow.roles import Role, roles
from tests.resharding.plan.simulate import SHAPE, megatron_to_vllm, megatron_to_vllm_pools


def sizes(**changes: object) -> ModelShape:
    return replace(SHAPE, **{"layers": 4, "heads": 4, "kv_heads": 2, "vocab": 23} | changes)


def facts(**models: ModelShape) -> Facts:
    return Facts(models={role: models.get(role, sizes()) for role in MODEL_ROLES})


def warnings(config: Config, cpus: int, planned: Mapping[str, int] = MappingProxyType({}), gpus: int = 0) -> list[str]:
    placed = resolve(config, ("actor", "critic", "reference", "reward"), gpus=gpus)
    return combination_checks.warnings(config, placed, cpus, planned)


def load(*overrides: str):
    return compose.compose("train", ["experiment=addition", *overrides]).to_config()


def test_a_sound_configuration_has_no_problem():
    assert combination_checks.problems(load(), facts()) == []
    assert combination_checks.problems(load("placement=split"), facts()) == []
    apart = load("placement=rollout_pool", "placement.pools.rollout=4", "rollout.parallel.tensor=4")
    assert combination_checks.problems(apart, facts()) == [], (
        "two ranks share a key/value head, and 4 does not divide 2"
    )


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["placement.pools.main=3"], "actor.parallel: tensor 2 x pipeline 1 = 2 ranks do not divide the 3 slots"),
        (["actor.parallel.pipeline=2"], "actor.parallel: tensor 2 x pipeline 2 = 4 ranks do not divide the 2 slots"),
        (
            ["trainer.profile_steps=[3,3]", "trainer.steps=9"],
            "trainer.profile_steps: [3, 3] given; steps from 0 to 8, each once, were expected, as trainer.steps = 9",
        ),
        (
            ["trainer.profile_steps=[3,9]", "trainer.steps=9"],
            "trainer.profile_steps: [3, 9] given; steps from 0 to 8, each once, were expected, as trainer.steps = 9",
        ),
        (["trainer.profile_steps=[-1]"], "trainer.profile_steps: -1 given, at least 0 expected"),
        (
            ["trainer.profile_steps=[0]", "trainer.steps=0"],
            "trainer.profile_steps: [0] given; none was expected, as trainer.steps = 0",
        ),
        (["placement.pools.main=0"], "placement.pools.main: 0 given, at least 1 and at most 65536 expected"),
        (["+placement.roles.actor=mian"], "placement.roles.actor: no pool is named 'mian'; there is main"),
        (["+placement.roles.acter=main"], "placement.roles.acter: no role is named 'acter'"),
        (["rollout.parallel.pipeline=-1"], "rollout.parallel.pipeline: -1 given, at least 1 expected"),
        (
            ["actor.parallel.context=2"],
            "actor.parallel.context: 2 given, but the engine megatron has no",
        ),
        (
            ["critic.parallel.expert=2"],
            "critic.parallel.expert: 2 given, but the engine megatron has no",
        ),
        (["rollout.parallel.pipeline=2"], "rollout.parallel.pipeline: 2 does not divide actor.parallel.pipeline = 1"),
        (
            ["placement=rollout_pool", "rollout.parallel.tensor=2"],
            "rollout.parallel: tensor 2 x pipeline 1 = 2 ranks do",
        ),
        (
            ["placement=rollout_pool", "placement.pools.rollout=3", "rollout.parallel.tensor=3"],
            "rollout.parallel.tensor: 3 d",
        ),
        (
            ["placement=rollout_pool", "placement.pools.rollout=3", "rollout.parallel.pipeline=3"],
            "rollout.parallel.pipeline: 3",
        ),
        (
            ["placement=rollout_pool", "rollout.resharding=full_gather"],
            "rollout.resharding: full_gather gathers in the",
        ),
        (["rollout.temperature=0"], "rollout.temperature: 0.0 given, at least 0.01 and at most 2 expected"),
        (["rollout.parallel.tensor=0"], "rollout.parallel.tensor: 0 given, at least 1 expected"),
        (["rollout.parallel.tensor=4"], "rollout.parallel.tensor: 4 does not divide actor.parallel.tensor = 2"),
        (["algorithm.minibatches=600"], "algorithm.minibatches: 600 minibatches of 512 rows"),
        (["rollout.max_response_tokens=32"], "rollout.max_response_tokens: 32 leaves no room"),
        (["critic.max_tokens_per_rank=16"], "critic.max_tokens_per_rank: 16 is less than one row"),
        (["reward_model.max_tokens_per_rank=48"], "reward_model.max_tokens_per_rank: 48 is less than one pair"),
        (["rollout.max_sequence_tokens=65"], "rollout.max_sequence_tokens: 65 is more than the 64 positions"),
        (["trainer.steps=-1"], "trainer.steps: -1 given, at least 0 expected"),
        (["rollout.stop=[a,'']"], "rollout.stop: an empty string given"),
        (["rollout.recovery=durable", "rollout.verify_refit=false"], "rollout.recovery: durable keeps rows of the"),
        (["rollout.stop_token_ids=[22,23]"], "rollout.stop_token_ids: 23 is no token of the vocabulary of 23"),
        (["rollout.top_k=0"], "rollout.top_k: 0 given, at least 1, or -1 for all tokens expected"),
        (["rollout.top_p=0"], "rollout.top_p: 0.0 given, more than 0 and at most 1 expected"),
    ],
)
def test_an_impossible_setting_is_the_one_problem(overrides, problem):
    found = combination_checks.problems(load(*overrides), facts())
    assert [line for line in found if not line.startswith(problem)] == [] and len(found) == 1


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (sizes(heads=9, kv_heads=3), "actor.parallel.tensor: 2 does not divide the 9 attention heads"),
        (sizes(heads=6, kv_heads=3), "actor.parallel.tensor: 2 does not divide the 3 key/value heads"),
        (sizes(ffn=33), "actor.parallel.tensor: 2 does not divide the 33 feed-forward rows"),
    ],
)
def test_a_model_that_cannot_be_cut_is_told_once_for_roles_cut_alike(model, problem):
    found = combination_checks.problems(load(), facts(actor=model, critic=model, reference=model))
    assert len(found) == 1 and found[0].startswith(problem)


def test_layers_must_divide_into_stages():
    three = sizes(layers=3)
    config = load("actor.parallel.tensor=1", "actor.parallel.pipeline=2")
    found = combination_checks.problems(config, facts(actor=three, critic=three, reference=three))
    assert [line.partition(":")[0] for line in found] == ["actor.parallel.pipeline"]


APART = ("placement=rollout_pool", "placement.pools.rollout=6")
SIX = ("actor.parallel.tensor=6", "placement.pools.main=6")


@pytest.mark.parametrize(
    ("overrides", "model", "problem"),
    [
        (
            (*APART, "rollout.parallel.tensor=3"),
            sizes(),
            "rollout.parallel.tensor: 3 does not divide the 4 att",
        ),
        (
            (*APART, "placement.pools.rollout=4", "rollout.parallel.tensor=4"),
            sizes(heads=12, kv_heads=6),
            "rollout.parallel.tensor: 4 neither divides nor is a multiple of the 6 key/value heads of",
        ),
        (
            (*APART, "rollout.parallel.tensor=3"),
            sizes(heads=12, kv_heads=6),
            "rollout.parallel.tensor: 3 does not divide the 32 feed-forward rows of",
        ),
        (
            (*APART, "rollout.parallel.tensor=3"),
            sizes(heads=12, kv_heads=6, ffn=48),
            "rollout.parallel.tensor: 3 does not divide the 64 rows to which vLLM pads the vocabulary of 23 of",
        ),
        ((*APART, "rollout.parallel.pipeline=3"), sizes(), "rollout.parallel.pipeline: 3 does not divide the 4 layers"),
        (
            (*SIX, "rollout.parallel.tensor=3"),
            sizes(heads=12, kv_heads=6, ffn=48),
            "rollout.parallel.tensor: 3 does not divide the 64 rows to which vLLM pads the vocabulary of 23 of",
        ),
        (
            (*SIX, "rollout.parallel.tensor=2"),
            sizes(heads=12, kv_heads=6, ffn=48, vocab=100),
            "rollout.parallel.tensor: 2 given, and actor.parallel.tensor = 6: model.embed_tokens.weight: tensor rank 0 "
            "of generation has rows 0 to 64, and the ranks that are to give it those have 0 to 96 in training: the "
            "shards do not nest; set it to 1, or",
        ),
    ],
)
def test_a_model_that_generation_cannot_have_is_told_before_anything_starts(overrides, model, problem):
    found = combination_checks.problems(load(*overrides), Facts(roles=ACTOR, models={"actor": model}))
    assert len(found) == 1 and found[0].startswith(problem)


ACTOR = ("actor", "critic", "reference")
TENSOR, PIPELINE = st.sampled_from([1, 1, 2, 3, 4, 6]), st.sampled_from([1, 1, 2, 3])


SOUND = load()


@settings(max_examples=6 * settings.default.max_examples)
@given(
    model=st.builds(
        sizes,
        layers=st.sampled_from([2, 6, 6]),
        heads=st.sampled_from([4, 12, 12]),
        kv_heads=st.sampled_from([1, 2, 4, 12, 12]),
        ffn=st.sampled_from([32, 48, 48]),
        vocab=st.sampled_from([14, 100, 180]),
    ),
    actor=st.tuples(TENSOR, PIPELINE),
    rollout=st.tuples(TENSOR, PIPELINE),
    method=st.sampled_from(["pools", "hybrid", "hybrid_v", "full_gather"]),
)
def test_no_plan_of_a_refit_is_refused_that_has_passed(model, actor, rollout, method):
    """And none is kept from being made that could be."""
    config = deepcopy(SOUND)
    config.placement.pools = {"main": actor[0] * actor[1], "rollout": rollout[0] * rollout[1]}
    config.actor.parallel.tensor, config.actor.parallel.pipeline = actor
    config.rollout.parallel.tensor, config.rollout.parallel.pipeline = rollout
    if method == "pools":
        config.placement.roles["rollout"] = "rollout"
    else:
        config.rollout.resharding = Resharding(method)
    known = Facts(roles=("actor",), models={"actor": model})
    found = [*model_checks.models(config, known), *placement_problems(config, known.roles)]
    bytes_of = {"itemsize": 4, "bucket_bytes": 2**20}
    try:
        if method == "pools":
            megatron_to_vllm_pools(model, Layout(*actor), Layout(*rollout), **bytes_of)
        else:
            layout = Layout(*actor, generation=rollout, nested=method != "hybrid_v")
            megatron_to_vllm(model, layout, method=method, **bytes_of)
    except ValueError:
        assert found
    else:
        assert found == []
    for problem in found:
        assert problem.partition(":")[0].rpartition(".")[0] in ("actor.parallel", "rollout.parallel"), problem


def test_roles_must_share_a_vocabulary():
    found = combination_checks.problems(load("critic.model.path=other"), facts(critic=sizes(vocab=24)))
    assert len(found) == 1 and found[0].startswith("critic.model.path: a vocabulary of 24")


MODEL_REWARD = ("experiment=addition_model_reward", "reward.model.path=scores")
SCORES = Facts(
    roles=("actor", "critic", "reference", "reward"),
    models={**dict.fromkeys(MODEL_ROLES, sizes()), "reward": sizes(head=Head.reward)},
)


def test_a_reward_by_a_model_is_checked_as_a_model():
    def found(model: ModelShape, *overrides: str) -> list[str]:
        facts = Facts(SCORES.roles, {**SCORES.models, "reward": model})
        return combination_checks.problems(load(*MODEL_REWARD, *overrides), facts)

    scorer = sizes(head=Head.reward)
    assert found(scorer) == []
    [problem] = found(sizes())
    assert problem.startswith("reward.model.path: scores has no score head; hybridflow train-reward")
    [problem] = found(scorer, "reward.parallel.pipeline=2")
    assert problem.startswith("reward.parallel: tensor 2 x pipeline 2 = 4 ranks do not divide the 2 slots of pool main")
    [problem] = found(sizes(head=Head.reward, kv_heads=1))
    assert problem.startswith("reward.parallel.tensor: 2 does not divide the 1 key/value heads of scores")
    [problem] = found(sizes(head=Head.reward, vocab=24))
    assert problem.startswith("reward.model.path: a vocabulary of 24")
    [problem] = found(scorer, "reward.max_tokens_per_rank=16")
    assert problem.startswith("reward.max_tokens_per_rank: 16 is less than one row")


def test_a_grader_is_not_checked_as_a_model():
    config = load("reward.parallel.tensor=5", "reward.max_tokens_per_rank=1", "reward.model.path=nowhere")
    assert combination_checks.problems(config, SCORES) == []


def test_a_reward_model_is_no_policy_but_a_critic_may_start_from_it():
    scorer = sizes(head=Head.reward)
    found = combination_checks.problems(
        load(), facts(actor=scorer, critic=scorer, reference=scorer, reward_model=scorer)
    )
    assert [line.partition(":")[0] for line in found] == ["actor.model.path", "reference.model.path"]
    assert all("is a reward model; a language model was expected" in line for line in found)


def test_more_slots_than_gpus_is_a_problem_beside_the_others():
    found = combination_checks.problems(load("trainer.steps=-1"), replace(facts(), gpus=1))
    assert [line.partition(":")[0] for line in found] == ["trainer.steps", "placement.pools.main"]


def test_problems_come_all_at_once():
    config = load("trainer.steps=-1", "placement.pools.main=3", "rollout.top_p=2", "rollout.parallel.pipeline=2")
    assert len(combination_checks.problems(config, facts())) == 4


def test_a_coefficient_needs_its_role():
    found = combination_checks.problems(load(), Facts(roles=("actor",)))
    keys = [line.partition(":")[0] for line in found]
    assert keys == ["algorithm.critic_warmup_steps", "algorithm.reward_kl_coef"]


def test_a_role_without_a_section_is_named():
    found = combination_checks.problems(load(), Facts(roles=(*MODEL_ROLES, "judge")))
    (problem,) = found
    assert problem.startswith("algorithm.name: ppo needs the role judge, for which the configuration has no section")


def test_a_role_that_a_module_brings_needs_none():
    brought = Facts(roles=(*MODEL_ROLES, "judge"), own=("judge",))
    assert combination_checks.problems(load("+placement.roles.judge=main"), brought) == []
    (problem,) = combination_checks.problems(load("+placement.roles.jugde=main"), brought)
    assert problem.startswith("placement.roles.jugde: no role is named 'jugde'")


@pytest.mark.parametrize("section", ["trainer", "run", "task"])
def test_a_section_of_no_role_is_placed_nowhere(section):
    (problem,) = combination_checks.problems(load(f"+placement.roles.{section}=main"))
    assert problem.startswith(f"placement.roles.{section}: no role is named '{section}'")


def test_a_role_may_be_placed_that_takes_no_part():
    own = type("Judge", (Role,), {})
    roles.register("judge_for_test")(own)
    try:
        lines = ("algorithm=grpo", "+placement.roles.critic=main", "+placement.roles.judge_for_test=main")
        assert combination_checks.problems(load(*lines), Facts(roles=("actor", "reference", "reward"))) == []
    finally:
        del roles._components["judge_for_test"]


def test_roles_that_take_no_part_are_not_looked_at():
    config = load("algorithm=grpo", "critic.parallel.tensor=5")
    assert combination_checks.problems(config, Facts(roles=("actor", "reference", "reward"))) == []


def test_warnings_are_no_problems():
    many = load("placement.pools.main=4", "trainer=smoke")
    assert combination_checks.problems(many, facts()) == []
    assert [line.partition(":")[0] for line in warnings(many, cpus=2)] == [
        "algorithm.critic_warmup_steps",
        "placement.pools",
    ]
    assert [line.partition(":")[0] for line in warnings(many, cpus=2, gpus=4)] == ["algorithm.critic_warmup_steps"]
    assert warnings(load(), cpus=2) == []
    assert warnings(load("placement.pools.main=4", "ray.address=auto"), cpus=2) == []


def test_what_learns_nothing_and_where_nothing_runs_is_told():
    config = load("actor.optimizer.lr=0", "+placement.pools.spare=1")
    assert combination_checks.problems(config, facts()) == []
    told = warnings(config, 8, {"actor": 400, "critic": 400})
    assert [line.partition(":")[0] for line in told] == ["actor.optimizer.lr", "placement.pools.spare"]


def test_turns_without_rewards_of_their_own_are_told():
    turns = ["environment.name=guess", "+algorithm.advantage.options.per_turn=true", "reward.grader=environment"]
    grpo = ["algorithm=grpo", "algorithm.policy_loss.kl_coef=0"]
    (told,) = warnings(load(*grpo, *turns), cpus=8)
    assert told.startswith("algorithm.advantage.options.per_turn: ") and "reward.grader=environment_turns" in told
    assert warnings(load(*grpo, *turns[:2], "reward.grader=environment_turns"), cpus=8) == []
    assert warnings(load(*grpo, turns[0], turns[2]), cpus=8) == []


SIZES = st.integers(min_value=1, max_value=8)


@given(tensor=SIZES, pipeline=SIZES, slots=st.integers(min_value=1, max_value=64))
def test_a_layout_is_accepted_exactly_if_it_divides_its_pool(tensor, pipeline, slots):
    config = load_once(tensor, pipeline, slots)
    found = combination_checks.problems(config, Facts(roles=("actor", "critic", "reference")))
    assert bool([line for line in found if line.startswith("actor.parallel:")]) == bool(slots % (tensor * pipeline))


def load_once(tensor: int, pipeline: int, slots: int):
    for role in MODEL_ROLES:
        cut = getattr(SOUND, role).parallel
        cut.tensor, cut.pipeline = tensor, pipeline
    SOUND.placement.pools = {"main": slots}
    return SOUND


def test_a_warm_up_longer_than_the_run_is_a_warning():
    config = load("actor.optimizer.warmup_steps=9")
    for count, expected in ((0, []), (8, ["actor.optimizer.warmup_steps"]), (9, [])):
        found = warnings(config, cpus=2, planned={"actor": count, "critic": 100})
        assert [line.partition(":")[0] for line in found] == expected


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_the_least_rate_is_no_more_than_the_rate(role):
    assert (
        combination_checks.problems(load(f"{role}.optimizer.lr=1e-3", f"{role}.optimizer.min_lr=1e-3"), facts()) == []
    )
    (problem,) = combination_checks.problems(
        load(f"{role}.optimizer.lr=1e-3", f"{role}.optimizer.min_lr=2e-3"), facts()
    )
    assert problem.startswith(f"{role}.optimizer.min_lr: 0.002 is more than {role}.optimizer.lr = 0.001")
