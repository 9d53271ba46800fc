"""Composition over our own configuration groups."""

import pytest
from omegaconf import OmegaConf

from hybridflow import preflight
from hybridflow.config import Config, auto_settings, compose, subcommand_choice
from hybridflow.config.schema import DType
from hybridflow.errors import ConfigError

GROUPS = (
    "experiment",
    "algorithm",
    "actor",
    "critic",
    "reference",
    "reward",
    "reward_model",
    "rollout",
    "placement",
    "task",
    "trainer",
)
BASE = ["experiment=addition"]


def fails(*overrides: str, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        preflight.load(overrides=list(overrides), **kwargs)
    return str(caught.value)


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (compose.configs_dir() / group).glob("*.yaml"))


def test_every_group_has_options():
    assert all(options(group) for group in GROUPS)


@pytest.mark.parametrize("group", [name for name in GROUPS if name != "algorithm"])
def test_every_option_composes(group):
    """Those of algorithms are checked, too: `test_what_comes_with_hybridflow_is_sound`."""
    for option in options(group):
        base = [] if group == "experiment" else BASE
        composed = compose.compose("train", [*base, f"{group}={option}"])
        assert isinstance(composed.to_config(), Config)


def test_a_change_of_what_one_caller_got_reaches_no_other():
    composed = compose.compose("train", BASE)
    composed.to_config().run.seed = 99
    assert composed.to_config().run.seed != 99


def test_addition_is_ppo_that_reshards():
    config = preflight.load(overrides=BASE)
    assert config.algorithm.name == "ppo"
    cuts = [config.actor.parallel.tensor, config.critic.parallel.tensor, config.reference.parallel.tensor]
    assert cuts == [2, 2, 2] and config.rollout.parallel.tensor == 1
    assert config.placement.pools == {"main": 2}
    assert config.actor.model.path == "runs/addition_warmup/model"


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_key_of_a_free_mapping_is_given_with_or_without_a_plus(prefix):
    given = [
        f"{prefix}task.options.max_operand=20",
        f"{prefix}placement.pools.main=4",
        f"{prefix}reward.graders={{exact: 1.0, brevity: 0.1}}",
        f"{prefix}algorithm.policy_loss.options.clip_low=0.3",
    ]
    config = preflight.load(overrides=[*BASE, *given])
    assert config.task.options["max_operand"] == 20 and config.placement.pools == {"main": 4}
    assert config.reward.graders == {"exact": 1.0, "brevity": 0.1}
    assert config.algorithm.policy_loss.options["clip_low"] == 0.3


def test_the_command_line_wins_over_the_experiment():
    config = preflight.load(overrides=[*BASE, "algorithm=grpo", "run.seed=7", "trainer=smoke"])
    assert (config.algorithm.name, config.algorithm.samples_per_prompt) == ("grpo", 8)
    assert config.run.seed == 7 and config.trainer.steps == 2


def test_critic_and_reference_follow_the_actor():
    config = preflight.load(overrides=[*BASE, "actor.model.path=m", "actor.model.dtype=bfloat16"])
    assert config.critic.model.path == config.reference.model.path == "m"
    assert config.critic.model.dtype is DType.bfloat16
    assert preflight.load(overrides=[*BASE, "critic.model.path=c"]).critic.model.path == "c"


def test_a_split_placement_has_only_its_own_pools():
    placement = preflight.load(overrides=[*BASE, "placement=split"]).placement
    assert placement.pools == {"policy": 2, "judges": 2}
    by_pool = {"policy": ("actor", "reference"), "judges": ("critic", "reward", "cost", "cost_critic")}
    assert placement.roles == {role: pool for pool, roles in by_pool.items() for role in roles}


def test_sft_is_the_default_of_its_command():
    assert preflight.load("sft", ["experiment=addition_warmup"]).algorithm.name == "sft"
    assert preflight.load("sft", ["experiment=addition"]).algorithm.name == "sft"  # whatever the experiment names
    assert compose.compose("sft").tree.algorithm.name == "sft"


def test_train_reward_starts_from_the_actors_model():
    config = preflight.load("train-reward", ["experiment=addition_reward", "actor.model.path=m"])
    assert (config.algorithm.name, config.task.name) == ("reward_model", "addition_pairs")
    assert (config.reward_model.model.path, config.reward_model.parallel.tensor) == ("m", 2)
    assert compose.compose("train-reward", ["experiment=addition"]).tree.algorithm.name == "reward_model"
    config = preflight.load("train-cost", ["experiment=addition_cost", "actor.model.path=m"])
    assert (config.algorithm.recipe, config.algorithm.pair_loss) == ("cost_model", "signed_cost")
    only_data = ["experiment=addition_reward", "algorithm=cost_model"]
    assert compose.compose("train-cost", only_data).tree.algorithm.recipe == "cost_model"


@pytest.mark.parametrize(
    ("command", "experiment", "other"),
    [
        ("train-reward", "addition_cost", "train-cost"),
        ("train-cost", "addition_reward", "train-reward"),
        ("train-cost", "addition_warmup", "sft"),
        ("sft", "addition_cost", "train-cost"),
    ],
)
def test_an_experiment_of_another_subcommand_is_an_error(command: str, experiment: str, other: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose.compose(command, [f"experiment={experiment}"])
    told = str(error.value)
    assert told.startswith("experiment: it chooses algorithm=") and f"{experiment}.yaml:" in told
    assert f"which hybridflow {other} trains by, and hybridflow {command} trains by algorithm=" in told
    assert f"; use hybridflow {other}, or write algorithm=" in told


def test_an_experiment_of_train_serves_others_and_that_is_said() -> None:
    (warning,) = subcommand_choice.warning(compose.compose("sft", ["experiment=addition"]).origins)
    assert warning.startswith("experiment: it chooses algorithm=ppo (") and "addition.yaml:5)" in warning
    assert warning.endswith("), but hybridflow sft trains by algorithm=sft")


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("sft", ["experiment=addition", "algorithm=sft"]),  # who writes it knows it
        ("sft", ["experiment=addition_warmup"]),
        ("train", ["experiment=addition_warmup"]),  # it has none of its own
        ("train-cost", ["experiment=addition_cost"]),
        ("sft", []),
    ],
)
def test_what_is_no_contradiction_is_not_said(command: str, overrides: list[str]) -> None:
    assert [*subcommand_choice.warning(compose.compose(command, overrides).origins)] == []


def test_yaml_repeats_no_default_of_the_schema():
    defaults = OmegaConf.structured(Config)
    for group in set(GROUPS) - {"experiment", "placement"}:
        for option in options(group):
            tree = OmegaConf.load(compose.configs_dir() / group / f"{option}.yaml")
            for key, value in leaves(OmegaConf.to_container(tree, resolve=False), group):
                default = OmegaConf.select(defaults, key)
                assert default is None or default != value, f"{group}/{option}.yaml repeats {key}"


def leaves(tree: dict, above: str):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}.{name}")
        else:
            yield f"{above}.{name}", value


def test_resolved_yaml_reads_back_to_the_same_config():
    config = preflight.load(overrides=[*BASE, "+task.options.held_out_fraction=0.2", "trainer.stop_at_accuracy=null"])
    text = compose.resolved_yaml(config)
    assert "${" not in text
    again = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text)))
    assert again == auto_settings.resolved(config) == auto_settings.resolved(again)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("actor.paralel.tensor=2", ["actor.paralel: no such key; did you mean actor.parallel?"]),
        ("+actor.paralel.tensor=2", ["actor.paralel: no such key; did you mean actor.parallel?"]),
        ("++run.sed=2", ["run.sed: no such key; did you mean run.seed?"]),
        ("actor.parallel.tensor=two", ["tensor: wrong type: 'two' given; a whole number (at least 1)", "command line"]),
        ("actor.model.dtype=fp16", ["actor.model.dtype: no such value: 'fp16' given; one of float32, bfloat16 was"]),
        ("trainer.steps=null", ["trainer.steps: wrong type"]),
        ("actor=[3]", ["actor=[3]: actor is a group: name one of its options, or leave it out"]),
        ("plugins=mine", ["plugins: a list of module names was expected"]),
        (
            "algorithm=grppo",
            ["algorithm=grppo", "did you mean grpo?", "grpo, gspo, ppo, reinforce_plus_plus, "],
        ),
        ("+trainer.steps=3", ["trainer.steps: has a value already; write trainer.steps=VALUE, without the +"]),
        ("run.seed=1,2", ["run.seed=1,2: several values need -m", "a list is written run.seed=[a,b]"]),
        ("algorithm.most_draws=3", ["algorithm.most_draws: no such key; it is called algorithm.max_draws now"]),
        ("algorithm.lagrange.least=3", ["it is called algorithm.lagrange.min now"]),
        ("trainer.metric_sinks=[null]", ["trainer.metric_sinks[0]: wrong type", "=[null] on the command line)"]),
        ("run.name=[1", ["run.name=[1: not understood"]),
        ("run.name=${runs.name}", ["run.name: Interpolation key 'runs.name' not found"]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_its_key(override, parts):
    message = fails(*BASE, override)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "value", ["hunter,2", "[hunter", "https://hunter@there,2"], ids=["a sweep", "half a list", "an address"]
)
def test_a_secret_is_shown_in_no_message(value):
    key = "trainer.resume" if "://" in value else "+trainer.sink_options.wandb.api_key"
    message = fails(*BASE, f"{key}={value}")
    assert message.startswith(f"{key}: ") and "hunter" not in message


def test_missing_values_are_listed_together_with_the_experiments():
    lines = fails().splitlines()
    model, grader, name, task = lines[:-1]
    assert model == "actor.model.path: must be given, as actor.model.path=VALUE"
    assert grader.endswith("as reward.grader=VALUE; or choose reward=NAME, one of environment, exact, last_number")
    assert name == "run.name: must be given, as run.name=VALUE"
    assert task.startswith("task.name: must be given, as task.name=VALUE; or choose task=NAME, one of addition, ")
    assert lines[-1].endswith(
        "one of addition, addition_cost, addition_dpo, addition_model_reward, addition_reward, addition_tools, "
        "addition_tools_warmup, addition_warmup, guess, smollm2"
    )


def test_a_users_folder_adds_options_and_errors_name_file_and_line(tmp_path):
    folder = tmp_path / "it's mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - addition\nrun:\n  name: mine\n")
    config = preflight.load(overrides=["experiment=mine"], config_dir=folder.parent)
    assert config.run.name == "mine" and config.task.name == "addition"

    (folder / "typo.yaml").write_text("# @package _global_\nactor:\n  paralel:\n    tensor: 2\n")
    message = fails("experiment=typo", config_dir=folder.parent)
    assert "actor.paralel: no such key; did you mean actor.parallel?" in message and "typo.yaml:3)" in message

    (folder / "kind.yaml").write_text("# @package _global_\nrun:\n  seed: one\n")
    assert "run.seed: wrong type" in (message := fails("experiment=kind", config_dir=folder.parent))
    assert "kind.yaml:3)" in message
    assert "no such folder" in fails(config_dir=tmp_path / "nowhere")


def test_the_options_of_a_group_are_ours_a_folders_and_those_in_hydras_store(tmp_path):
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.yaml").write_text("grader: exact\n")
    ours = compose.options("reward")  # and what other tests have put into the store
    assert {"exact", "last_number"} <= set(ours)
    assert compose.options("reward", tmp_path) == sorted([*ours, "mine"])


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["actor.optimizer.lr=-1"], ["actor.optimizer.lr: -1.0 given, at least 0 expected", "on the command line"]),
        (["actor.worker=nope"], ["actor.worker: 'nope' given, but no worker is named so"]),
        (
            ["algorithm=sft", "algorithm.samples_per_prompt=4"],
            ["algorithm.samples_per_prompt: 4 given, but sft"],
        ),
        (["plugins=[not_there]"], ["plugins: cannot import 'not_there'"]),
        (["algorithm.policy_loss.name=ppo_clpi"], ["algorithm.policy_loss.name: no policy loss is named"]),
        (
            ["placement.pools.main=3", "critic.optimizer.beta2=1"],
            ["critic.optimizer.beta2: 1.0 given", "do not divide the 3 slots"],
        ),
    ],
)
def test_python_is_told_what_the_command_is_told(overrides, parts):
    message = fails(*BASE, *overrides)
    assert [part for part in parts if part not in message] == []


def test_two_whole_recipes_are_not_put_on_top_of_each_other(tmp_path) -> None:
    with pytest.raises(
        ConfigError, match=r"^algorithm=\[gspo,cispo\]: each of gspo, cispo is a whole algorithm, and a"
    ):
        compose.compose("train", ["experiment=addition", "algorithm=[gspo,cispo]"])
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm/mine.yaml").write_text("epochs: 2")
    own = compose.compose("train", ["experiment=addition", "algorithm=[gspo,mine]"], tmp_path).tree.algorithm
    assert (own.recipe, own.epochs) == ("gspo", 2)


def test_several_options_of_a_group_are_a_sweep_and_no_list() -> None:
    with pytest.raises(ConfigError) as error:
        compose.compose("train", ["experiment=addition", "algorithm=gspo,cispo"])
    assert str(error.value) == "algorithm=gspo,cispo: several values need -m (a sweep)"
