"""`hybridflow train` and `sft`, from arguments to the trainer, through Hydra's own application."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from hybridflow.cli import launch, main
from hybridflow.errors import HybridFlowError, Stopped

TRAIN = ["train", "experiment=addition", "actor.model.path=model"]


def written(folder) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_run_reaches_the_trainer_and_hydra_writes_only_its_own_folder(workplace, ran, capsys):
    assert main([*TRAIN, "run.seed=5", "algorithm=grpo"]) == 0
    assert [(config.run.seed, config.algorithm.name) for config in ran] == [(5, "grpo")]
    hydras = [f"addition/.hydra/{name}.yaml" for name in ("config", "hydra", "overrides")]
    assert written(workplace / "runs") == [*hydras, "addition/config.yaml"]
    model = [f"model/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")]
    assert written(workplace) == [*model, *(f"runs/{name}" for name in hydras), "runs/addition/config.yaml"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("more", "status"), [((), 75), (("trainer.resume=never",), 1)])
def test_a_run_that_is_to_be_resumed_may_be_ended_while_it_is_checked(workplace, monkeypatch, capsys, more, status):
    """It takes seconds, and a scheduler that has just started it may need the machine."""

    def stop(*_):
        raise Stopped(signal.SIGTERM)

    folder = workplace / "runs/addition/checkpoints/step-000003"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setattr(launch.preflight, "problems", stop)
    assert main([*TRAIN, *more]) == status
    assert ("3 steps saved, and this goes on from there" in capsys.readouterr().err) is (status == 75)


def test_sft_has_its_own_default(workplace, ran):
    assert main(["sft", "experiment=addition_warmup", "actor.model.path=model"]) == 0
    assert ran[0].algorithm.name == "sft" and ran[0].run.name == "addition_warmup"


def test_train_reward_has_its_own_default(workplace, ran):
    assert main(["train-reward", "experiment=addition_reward", "actor.model.path=model"]) == 0
    assert (ran[0].algorithm.name, ran[0].reward_model.model.path) == ("reward_model", "model")


def test_train_cost_has_its_own_default_and_needs_labels(workplace, ran, capsys):
    assert main(["train-cost", "experiment=addition_cost", "actor.model.path=model"]) == 0
    assert (ran[0].algorithm.recipe, ran[0].task.name) == ("cost_model", "addition_sevens")
    pairs = ["experiment=addition_reward", "algorithm=cost_model", "actor.model.path=model"]
    assert main(["train-cost", *pairs]) == 2
    assert "reads chosen_harmful and rejected_harmful, which addition_pairs does not give" in capsys.readouterr().err


def test_a_check_looks_at_rows_too_and_starts_nothing(workplace, capsys):
    rows = [
        "task=rows",
        "task.options.path=rows.jsonl",
        "trainer.validation_prompts=1",
        "rollout.max_sequence_tokens=16",
    ]
    (workplace / "rows.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": "2+1", "answer": "3"}\n')
    assert main([*TRAIN, "--check", "-m", "run.seed=1,2", *rows]) == 0
    out = capsys.readouterr().out
    assert "addition/1:\ntask rows: rows.jsonl: 1 rows to learn from, 1 held out: 50.0% of its rows" in out
    assert out.endswith("settings, models and rows are sound; nothing was started: without --check it runs\n")
    (workplace / "rows.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": 3}\n')
    assert main([*TRAIN, "--check", *rows]) == 2
    assert "rows.jsonl:2: column 'prompt'" in capsys.readouterr().err
    assert not (workplace / "runs").exists()


def test_flags_may_stand_anywhere(workplace, ran):
    assert main([*TRAIN, "-m", "run.seed=1,2"]) == 0
    assert [config.run.seed for config in ran] == [1, 2]


def test_escapes_on_the_command_line_are_characters(workplace, ran):
    assert main([*TRAIN, "-m", r'rollout.stop=["\n"],[\t]', "run.seed=1"]) == 0
    assert [config.rollout.stop for config in ran] == [["\n"], ["\t"]]


def test_every_job_of_a_sweep_has_its_own_folder(workplace, ran, capsys):
    assert main([*TRAIN, "-m", "run.seed=1,2", "algorithm=ppo,grpo"]) == 0
    assert [config.run.name for config in ran] == [f"addition/{number}" for number in range(4)]
    assert {config.algorithm.name for config in ran} == {"ppo", "grpo"}
    assert all((workplace / "runs" / config.run.name / ".hydra").is_dir() for config in ran)
    assert "job 3 (4 of 4): experiment=addition" in capsys.readouterr().out


def test_what_is_doubtful_about_every_job_is_said_once_with_its_place(workplace, ran, capsys):
    assert main([*TRAIN, "actor.optimizer.lr=0", "-m", "run.seed=1,2"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "actor.optimizer.lr: 0 given" in line]
    assert len(told) == 1 and told[0].endswith("(actor.optimizer.lr=0 on the command line)")


def test_a_sweep_over_experiments(workplace, ran):
    names = ["-m", "experiment=addition,smollm2", "actor.model.path=model", "actor.parallel.tensor=1", "rollout=short"]
    assert main(["train", *names]) == 0
    assert [config.run.name for config in ran] == ["addition/0", "smollm2/1"]


def test_no_job_starts_if_one_is_wrong(workplace, ran, capsys):
    assert main([*TRAIN, "-m", "actor.parallel.tensor=1,3", "run.seed=1,2"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert ran == [] and not (workplace / "runs").exists()
    assert [line for line in lines if "job 2: actor.parallel: tensor 3" in line]
    assert len(lines) == len(set(lines)) == 3  # the head, the slots, the heads: not again for the other seed


def test_the_checks_of_many_jobs_tell_how_far_they_are(workplace, ran, capsys, monkeypatch):
    monkeypatch.setattr(launch, "TELL_EVERY_S", 0.0)
    assert main([*TRAIN, "-m", "run.seed=1,2,3"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "are checked" in line]
    assert told == [f"{n} of 3 jobs are checked; the first starts when all are" for n in range(3)]


def test_a_failing_job_does_not_stop_the_sweep(workplace, ran, capsys):
    ran.raises += [HybridFlowError("no more disk")]
    assert main([*TRAIN, "-m", "run.seed=1,2"]) == 1
    assert len(ran) == 2
    assert capsys.readouterr().err.splitlines() == ["hybridflow: no more disk", "hybridflow: 1 of 2 jobs failed: 0"]


def test_an_error_for_the_user_is_the_last_line_without_a_traceback(workplace, ran, capsys):
    ran.raises += [HybridFlowError("rank 1 stopped: no more disk")]
    assert main(TRAIN) == 1
    assert capsys.readouterr().err == "hybridflow: rank 1 stopped: no more disk\n"


def test_a_bug_shows_its_traceback_and_ends_with_its_cause(workplace, ran, capsys):
    ran.raises += [RuntimeError("a bug")]
    assert main(TRAIN) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "RuntimeError: a bug"


def test_ctrl_c_ends_with_130_and_one_line(workplace, ran, capsys):
    ran.raises += [KeyboardInterrupt()]
    assert main([*TRAIN, "-m", "run.seed=1,2"]) == 130
    assert len(ran) == 1
    assert capsys.readouterr().err == "hybridflow: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "run.name: must be given"),
        (["experiment=adition"], "did you mean addition?"),
        ([*TRAIN[1:], "actor.paralel.tensor=2"], "actor.paralel: no such key; did you mean actor.parallel?"),
        ([*TRAIN[1:], "actor.parallel.tensor=x"], "actor.parallel.tensor: wrong type"),
        (
            [*TRAIN[1:], "actor.parallel.tensor=3"],
            "actor.parallel.tensor: 3 does not divide the 4 attention heads of model",
        ),
        ([*TRAIN[1:], "reward.grader=exakt"], "reward.grader: no grader is named 'exakt'; did you mean 'exact'?"),
        ([*TRAIN[1:], "task.name=adition"], "task.name: no task is named 'adition'; did you mean 'addition'?"),
        ([*TRAIN[1:], "algorithm.name=pppo"], "algorithm.name: no algorithm is named 'pppo'; did you mean 'ppo'?"),
        (
            [*TRAIN[1:], "+task.options.digits=2"],
            "task.options.digits: no such option; did you mean 'last_digits'? the component takes max",
        ),
        (["experiment=addition"], "actor.model.path: runs/addition_warmup/model is not a model folder"),
        ([*TRAIN[1:], "plugins=[not_there]"], "plugins: cannot import 'not_there'"),
        ([*TRAIN[1:], "--experimental-rerun", "x.pickle"], "--experimental-rerun: not supported"),
        (
            ["--experiment=addition"],
            "--experiment=addition: there is no such flag; a setting is given without dashes, as ex",
        ),
        ([*TRAIN[1:], "--trainer.steps", "5"], "--trainer.steps: there is no such flag; a setting is given without"),
        ([*TRAIN[1:], "--wandb.api_key=hunter2"], "--wandb.api_key: there is no such flag; a setting is given without"),
        ([*TRAIN[1:], "--resume=never"], "a setting is given without dashes, as trainer.resume=never"),
        ([*TRAIN[1:], "trainer.call_timeouts_s=60"], "call_timeouts_s: wrong type: 60 given; values by name were"),
        (["addition"], "addition: not understood; write key=value, as experiment=addition"),
        ([*TRAIN[1:], "environment=graded"], "and has no option: environment.name=graded"),
        ([*TRAIN[1:], "-cp", "elsewhere"], "-cp: not supported"),
        (["--cfg", "job", "actor.paralel=1"], "did you mean actor.parallel?"),
        (["experiment=null"], "experiment=null: experiment is a group: name one of its options, or leave it out"),
        ([*TRAIN[1:], f"run.seed={'9' * 5000}"], "…: not understood: Exceeds the limit"),
        ([*TRAIN[1:], f"+task.options.x={'[' * 3000}{']' * 3000}"], "composing does not end"),
        ([*TRAIN[1:], "-m", "run.seed=range(1,1)"], "run.seed=range(1,1): there is nothing in the sweep"),
        ([*TRAIN[1:], "-m", "run.seed=glob(*)"], "run.seed=glob(*): there is nothing in the sweep"),
        ([*TRAIN[1:], "-m", "run.seed=range(1,9,0)"], "range() arg 3 must not be zero"),
        ([*TRAIN[1:], "-m", "run.seed=interval(0,1)"], "does not support sweep type"),
        ([*TRAIN[1:], "-m", "--cfg", "job"], "-m: --cfg and --info are of one job"),
        ([*TRAIN[1:], "hydra.mode=nope"], "hydra.mode"),
        ([*TRAIN[1:], "hydra.searchpath=5"], "hydra.searchpath=5: a list of folders was expected"),
        ([*TRAIN[1:], "hydra.searchpath=[nope]"], "hydra.searchpath=[nope]: there is no folder nope"),
        ([*TRAIN[1:], "reward.worker=model"], "reward.model.path: none is given; reward.worker = model needs"),
        ([*TRAIN[1:], "reward.worker=model", "reward.model.path=model"], "reward.model.path: model has no score head"),
        ([*TRAIN[1:], "reward.worker=model", "reward.model.path=x"], "x is not a model folder (no config.json); give"),
        (
            [*TRAIN[1:], "reward.worker=model", "reward.model.path=runs/a/model"],
            "the run a leaves it there at its end: hybridflow train-reward … run.name=a",
        ),
        (
            [*TRAIN[1:], "algorithm=safe_rlhf", "cost.worker=cost_model", "cost.model.path=runs/a/model"],
            "the run a leaves it there at its end: hybridflow train-cost … run.name=a",
        ),
        (
            [*TRAIN[1:], "algorithm=reward_model"],
            "task.name: reward_model learns from preferences",
        ),
    ],
)
def test_a_mistake_ends_with_2_before_anything_starts(workplace, ran, capsys, arguments, part):
    assert main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert part in err and err.startswith("hybridflow train:")
    assert "Traceback" not in err and "HYDRA" not in err and out == ""
    assert ran == [] and not (workplace / "runs").exists()


def test_missing_model_folders_say_how_to_make_them(workplace, capsys):
    assert main(["train", "experiment=addition"]) == 2
    assert "hybridflow sft experiment=addition_warmup" in capsys.readouterr().err
    assert main(["sft", "experiment=addition_warmup"]) == 2
    assert "hybridflow model addition --out models/addition" in capsys.readouterr().err
    assert main(["train", "experiment=smollm2"]) == 2
    assert "hybridflow model smollm2 --out models/smollm2-135m-instruct" in capsys.readouterr().err
    assert main([*TRAIN, "actor.model.path=runs/mine/model"]) == 2
    assert (
        "(no config.json); the run mine leaves it there at its end: hybridflow sft … run.name=mine (actor"
        in capsys.readouterr().err
    )
    (workplace / "runs/mine/model").mkdir(parents=True)
    (workplace / "runs/mine/model/config.json").write_text("{}")
    assert main([*TRAIN, "actor.model.path=runs/mine"]) == 2
    assert "it is a run folder: give the model in it, runs/mine/model" in capsys.readouterr().err


def test_problems_name_the_users_file_and_line(workplace, ran, capsys):
    folder = workplace / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - addition\nactor:\n  model:\n    path: model\nreward:\n  grader: exat\n"
    (folder / "my_sums.yaml").write_text(text)
    assert main(["train", "-cd", "mine", "experiment=my_sums"]) == 2
    assert "(mine/experiment/my_sums.yaml:8)" in capsys.readouterr().err


def test_help_of_a_sweep_is_help(workplace, capsys):
    assert main(["train", "-m", "--help"]) == 0
    out, err = capsys.readouterr()
    assert "choose an experiment" in out and err == ""


def test_a_sweep_over_a_glob_asks_the_users_folder_too(workplace, ran):
    folder = workplace / "mine" / "experiment"
    folder.mkdir(parents=True)
    for seed in (1, 2):
        (folder / f"mine_{seed}.yaml").write_text(f"# @package _global_\ndefaults: [addition]\nrun: {{seed: {seed}}}\n")
    assert main(["train", "-cd", "mine", "-m", "experiment=glob(mine*)", "actor.model.path=model"]) == 0
    assert [config.run.seed for config in ran] == [1, 2]


def test_a_job_stays_where_its_paths_are_told_from(workplace, ran, capsys):
    ran.leaves = lambda config: ran.append(os.getcwd())
    assert main([*TRAIN, "hydra.job.chdir=true"]) == 0
    assert ran[1] == str(workplace)
    assert capsys.readouterr().err.startswith("warning: hydra.job.chdir: paths are told from")


def test_what_hydra_cannot_write_is_one_line(workplace, ran, capsys):
    (workplace / "file").write_text("")
    assert main([*TRAIN, "hydra.run.dir=file/x"]) == 2
    err = capsys.readouterr().err
    assert ran == [] and err == "hybridflow train: file/x: Not a directory\n"


@pytest.mark.parametrize("end", [SystemExit(0), SystemExit("over"), GeneratorExit()])
def test_no_exception_of_a_run_is_a_success(workplace, ran, capsys, end):
    ran.raises += [end]
    assert main(TRAIN) == 1
    assert type(end).__name__ in capsys.readouterr().err.splitlines()[-1]


PLUGIN = """
from hydra.core.config_store import ConfigStore
from hybridflow.tasks.task import graders

@graders.register("generous")
def generous(response, answer):
    return 1.0

ConfigStore.instance().store(group="reward", name="generous", node={"grader": "generous"})
"""


def test_a_plugin_registers_a_part_and_a_schema_from_the_working_directory(workplace, ran):
    (workplace / "generous_plugin.py").write_text(PLUGIN)
    try:
        assert main([*TRAIN, "plugins=[generous_plugin]", "reward=generous"]) == 0
    finally:
        sys.modules.pop("generous_plugin", None)
    assert ran[0].reward.grader == "generous" and ran[0].plugins == ["generous_plugin"]


def test_a_broken_plugin_is_named_with_its_line(workplace, ran, capsys):
    (workplace / "broken_plugin.py").write_text("x = 1\ny = x / 0\n")
    assert main([*TRAIN, "plugins=[broken_plugin]"]) == 2
    err = capsys.readouterr().err
    assert "plugins: cannot import 'broken_plugin': ZeroDivisionError: division by zero (" in err
    assert "broken_plugin.py:2)" in err and len(err.splitlines()) == 1


def test_cfg_prints_the_job_and_runs_nothing(workplace, ran, capsys):
    assert main([*TRAIN, "--cfg", "job", "--package", "run"]) == 0
    assert "name: addition" in capsys.readouterr().out
    assert ran == [] and not (workplace / "runs").exists()


def test_a_run_folder_in_use(workplace, ran, capsys):
    """By another process, told before Hydra writes a file; also for a job of a sweep."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom hybridflow.observe.run_lock import locked\n"
        "with locked(Path('runs/addition')), locked(Path('runs/addition/1')):\n print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"\n"
        before = sorted(workplace.rglob("*"))
        for job, more in (("", []), ("/1", ["-m", "run.seed=1,2"])):
            assert main([*TRAIN, *more]) == 2
            error = capsys.readouterr().err
            assert f"run.name: runs/addition{job} is in use by process {holder.pid} on " in error
            assert error.count("\n") == 1
        assert sorted(workplace.rglob("*")) == before and ran == []
        holder.kill()
    assert main(TRAIN) == 0 and len(ran) == 1


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "''", ".", "exp/.."])
def test_a_name_that_leads_out_of_the_root(workplace, ran, capsys, name):
    before = sorted(workplace.rglob("*"))
    assert main([*TRAIN, f"run.name={name}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hybridflow train: run.name: ") and error.count("\n") == 1
    assert sorted(workplace.rglob("*")) == before and ran == []


def test_a_sweep_may_start_from_the_model_of_its_name(workplace, ran):
    """Its jobs have folders of their own; a run of that name would move its own input away."""
    (workplace / "runs").mkdir()
    shutil.copytree(workplace / "model", workplace / "runs/addition/model")
    own = [argument.replace("=model", "=runs/addition/model") for argument in TRAIN]
    assert own != TRAIN
    assert main(own) == 2 and ran == []
    assert main([*own, "-m", "run.seed=1"]) == 0 and len(ran) == 1


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_start_that_fails_leaves_what_hydra_wrote_for_an_earlier_run(workplace, ran, flags):
    assert main([*TRAIN, "run.seed=5", *flags]) == 0
    before = {name: (workplace / "runs" / name).read_bytes() for name in written(workplace / "runs")}
    ran.leaves = lambda config: None  # nothing: it does not begin
    ran.raises += [HybridFlowError("no cluster"), HybridFlowError("no cluster")]
    assert main([*TRAIN, "run.seed=6", *flags]) == 1
    assert main([*TRAIN, "run.seed=6", "run.name=new/er", *flags]) == 1
    after = {name: (workplace / "runs" / name).read_bytes() for name in written(workplace / "runs")}
    assert {name: after[name] for name in before if "multirun" not in name} == {
        name: text for name, text in before.items() if "multirun" not in name
    }
    assert [name for name in after if name not in before] == (["new/er/multirun.yaml"] if flags else [])


def test_a_value_of_any_length_is_no_name_of_an_option(workplace, ran):
    long = "you add numbers " * 40
    assert main([*TRAIN, f"rollout.stop=['{long}']"]) == 0
    assert main([*TRAIN, f"run.root='{'a' * 300}'"]) == 2
    assert [config.rollout.stop for config in ran] == [[long]]


def test_a_path_may_begin_at_home(workplace, ran, monkeypatch):
    monkeypatch.setenv("HOME", str(workplace))
    assert main(["train", "experiment=addition", "actor.model.path=~/model", "run.root=~/r é"]) == 0
    assert ran[0].actor.model.path == f"{workplace}/model" and (workplace / "r é" / "addition" / ".hydra").is_dir()
    assert not (workplace / "~").exists()


def test_what_hydra_could_not_write_stays_too(workplace, ran, capsys):
    (workplace / "runs" / "addition" / ".hydra").mkdir(parents=True)
    (workplace / "runs" / "addition" / ".hydra" / "notes.yaml").mkdir()
    ran.leaves = lambda config: None
    ran.raises += [HybridFlowError("no cluster")]
    assert main(TRAIN) == 1
    assert [path.name for path in (workplace / "runs" / "addition").rglob("*")] == [".hydra", "notes.yaml"]
