import os

import pytest

from hybridflow.config import plugins
from hybridflow.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nplugins: [a, b]\n")
    (tmp_path / "experiment" / "bad.yaml").write_text("# @package _global_\nplugins: a\n")
    return tmp_path


def test_plugins_are_read_from_the_chosen_experiment(folder):
    assert plugins.named("train", ["experiment=mine", "run.seed=2"], folder) == ["a", "b"]
    assert plugins.named("train", ["experiment=addition"], folder) == []


def test_the_command_line_replaces_them(folder):
    assert plugins.named("train", ["experiment=mine", "plugins=[c]"], folder) == ["c"]


@pytest.mark.parametrize("overrides", [["experiment=bad"], ["plugins=a"], ["plugins=[1]"]])
def test_anything_but_a_list_of_names_is_refused(folder, overrides):
    with pytest.raises(ConfigError, match="plugins: a list of module names was expected"):
        plugins.named("train", overrides, folder)


def test_a_plugin_that_leaves_the_folder_takes_nobody_along(tmp_path, monkeypatch):
    (tmp_path / "leaves_the_folder.py").write_text("import os\nos.chdir('/')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load(["leaves_the_folder"])
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("text", ["while True:\n    pass\n", "import time\ntime.sleep(99)\n"])
def test_a_plugin_whose_import_never_ends_is_told_with_its_line(tmp_path, monkeypatch, text):
    (tmp_path / "never_ends.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.LONGER, "0.1")
    with pytest.raises(
        ConfigError, match=r"'never_ends': TimeoutError: it took longer than 0.1 s \(.*never_ends.py:[12]\)"
    ):
        plugins.load(["never_ends"])


def test_a_plugin_that_goes_on_after_its_time_is_told_too(tmp_path, monkeypatch):
    text = "import time\ntry:\n    time.sleep(99)\nexcept Exception:\n    pass\n"
    (tmp_path / "goes_on.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.LONGER, "0.1")
    with pytest.raises(ConfigError, match=rf"import 'goes_on': it took longer than 0.1 s; {plugins.LONGER}=SECONDS"):
        plugins.load(["goes_on"])


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf", ""])
def test_what_a_plugin_may_take_is_seconds(monkeypatch, given):
    monkeypatch.setenv(plugins.LONGER, given)
    with pytest.raises(ConfigError, match=f"{plugins.LONGER}: '{given}' given in the environment, seconds above 0"):
        plugins.load(["os"])


def test_a_plugin_that_ends_the_process_is_told_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "ends_it.py").write_text("import os\nos._exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"os\._exit\(0\) would have ended the process \(.*ends_it.py:2\)"):
        plugins.load(["ends_it"])
