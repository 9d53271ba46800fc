"""A composition of options that were composed before is what Hydra composes, and none of an earlier state of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hybridflow.config import compose, free_keys, option_loader
from hybridflow.config.option_loader import OptionLoader
from hybridflow.errors import ConfigError


def as_hydra_does(config_name: str, overrides: list[str]) -> DictConfig:
    compose.store_schema()
    with hydra.initialize_config_dir(str(compose.configs_dir()), version_base=compose.VERSION_BASE):
        return hydra.compose(config_name, free_keys.added(overrides))


@pytest.mark.parametrize(
    ("config_name", "overrides"),
    [
        ("sft", ["experiment=addition"]),
        ("train", ["experiment=addition", "run.seed=2", "algorithm=grpo", "actor.optimizer.lr=1e-3"]),
        ("train", ["run.seed=2", "algorithm=grpo", "experiment=addition", "~critic", "run.seed=3", "plugins=[json]"]),
        (
            "train",
            ["experiment=smollm2", "task.options={a: 1}", "++task.options.b=[1, {c: null}]", "+task.options.d=x"],
        ),
        ("train", ["experiment=addition", "actor.parallel={tensor: 2}", "run.name=${task.name}-${run.seed}"]),
    ],
)
def test_it_is_hydras(config_name: str, overrides: list[str]) -> None:
    expected = as_hydra_does(config_name, overrides)
    for _ in range(2):
        tree = compose.compose(config_name, overrides).tree
        assert OmegaConf.to_container(tree, resolve=False) == OmegaConf.to_container(expected, resolve=False)
        assert tree._get_flag("struct") and OmegaConf.get_type(tree, "actor") is OmegaConf.get_type(expected, "actor")


@pytest.mark.parametrize(
    "mistake", ["+task=addition", "algorithm={gama: 1}", "run.sed=1", "~nothing", "algorithm=pppo"]
)
def test_a_mistake_is_one_each_time(mistake: str) -> None:
    told = set()
    for _ in range(2):
        with pytest.raises(ConfigError) as raised:
            compose.compose("train", ["experiment=addition", mistake])
        told.add(str(raised.value))
    assert len(told) == 1


@pytest.mark.parametrize(
    "overrides", [[], ["run.seed=2", "algorithm=grpo", "hydra.mode=MULTIRUN"], ["hydra.verbose=true"]]
)
def test_so_it_is_of_hydras_application(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that its own section says of the command line and of the working directory."""
    path = create_config_search_path(str(compose.configs_dir()))
    compose.store_schema()
    lines = ["experiment=addition", *overrides]
    expected = ConfigLoaderImpl(path).load_configuration("train", lines, RunMode.RUN)
    earlier = OptionLoader(path).load_configuration("train", ["experiment=addition", "run.seed=7"], RunMode.RUN)
    assert earlier.hydra.overrides.task == ["experiment=addition", "run.seed=7"]
    for place in (Path.cwd(), tmp_path):
        monkeypatch.chdir(place)
        expected.hydra.runtime.cwd = str(place)
        found = OptionLoader(path).load_configuration("train", lines, RunMode.RUN)
        assert OmegaConf.to_container(found, resolve=False) == OmegaConf.to_container(expected, resolve=False)


def test_so_it_is_of_a_users_folder(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    file = tmp_path / "task" / "mine.yaml"
    seen = []
    for name in ("one", "another"):
        file.write_text(f"name: {name}\n")
        for seed in (1, 2):
            tree = compose.compose("train", ["task=mine", f"run.seed={seed}"], tmp_path).tree
            seen.append((tree.task.name, tree.run.seed))
    assert seen == [("one", 1), ("one", 2), ("another", 1), ("another", 2)]
    other = tmp_path / "other"
    (other / "task").mkdir(parents=True)
    (other / "task" / "mine.yaml").write_text("name: elsewhere\n")
    assert compose.compose("train", ["task=mine"], other).tree.task.name == "elsewhere"
    assert compose.compose("train", ["task=mine", f"hydra.searchpath=[{other}]"]).tree.task.name == "elsewhere"


def test_what_is_changed_in_one_is_not_in_the_next() -> None:
    first = compose.compose("train", ["experiment=addition"]).tree
    before = first.run.name
    first.run.name = "other"
    assert compose.compose("train", ["experiment=addition"]).tree.run.name == before


def test_a_file_that_was_edited_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(compose.configs_dir(), tmp_path / "configs"))
    monkeypatch.setattr(compose, "configs_dir", lambda: folder)
    file = folder / "task" / "addition.yaml"
    seen = []
    for options in ("{a: 1}", "{a: 23}"):
        file.write_text(f"name: addition\noptions: {options}\n")
        seen.append(compose.compose("train", ["task=addition"]).tree.task.options.a)
        path = create_config_search_path(str(folder))
        found = OptionLoader(path).load_configuration("train", ["task=addition"], RunMode.RUN)
        assert found.task.options.a == seen[-1]
    file.unlink()
    with pytest.raises(ConfigError):
        compose.compose("train", ["task=addition"])
    assert seen == [1, 23]


def test_so_is_an_option_in_hydras_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    for seed in (5, 6):
        ConfigStore.instance().store(group="run", name="mine", node={"seed": seed})
        assert compose.compose("train", ["+run=mine"]).tree.run.seed == seed


def test_where_values_come_from_is_told_each_time() -> None:
    for _ in range(2):
        origins = compose.compose("train", ["experiment=addition", "run.seed=2"]).origins
        assert "task/addition.yaml:" in str(origins.find("task.name"))
        assert origins.find("run.seed") == "run.seed=2 on the command line"


def test_a_long_sweep_keeps_no_more_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_loader, "MAX_KEPT", 2)
    monkeypatch.setattr(option_loader, "_kept", {})
    for task in ("addition", "rows", "word_sums", "addition"):
        assert compose.compose("train", [f"task={task}"]).tree.task.name == task
    assert len(option_loader._kept) == 2


def test_hydras_application_starts_from_what_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_loader, "_kept", {})
    compose.compose("train", ["experiment=addition", "run.seed=2"])
    assert len(option_loader._kept) == 1
    JobRuntime.instance().set("name", compose.JOB)
    for mode in RunMode:
        path = create_config_search_path(str(compose.configs_dir()))
        assert OptionLoader(path).load_configuration("train", ["experiment=addition"], mode).hydra.job.name == "train"
    assert len(option_loader._kept) == 1
