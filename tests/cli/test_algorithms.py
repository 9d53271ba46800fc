"""`hybridflow algorithms`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow.cli import algorithms, main
from hybridflow.config.compose import configs_dir
from hybridflow.config.schema import AlgorithmConfig as Settings


def test_where_it_is_piped_it_is_a_line_an_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms"]) == 0
    head, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert head == ["algorithm", "paper", "roles", "components"]
    assert {line[0] for line in lines} >= {file.stem for file in (configs_dir() / "algorithm").glob("*.yaml")}
    ppo = next(line for line in lines if line[0] == "ppo")
    assert ppo[1:3] == ["arXiv 1707.06347", "actor*, critic*, reference, reward"]
    assert ppo[3] == "advantage gae, loss ppo_clip by token_mean, fixed KL k1 in rewards"
    assert next(line for line in lines if line[0] == "cost_model")[1:] == [
        "arXiv 2310.12773",
        "reward_model*",
        "loss signed_cost",
    ]


def test_a_module_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridflow.algorithms import Algorithm
    from hybridflow.algorithms import algorithms as registry

    class Mine(Algorithm):
        roles = ("actor", "cost")

    monkeypatch.setitem(registry._components, "mine", Mine)
    assert ("mine", "", "actor*, cost", "loss ppo_clip by token_mean") in algorithms.rows()


def test_a_loss_of_its_own_is_among_its_components(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridflow.algorithms import Algorithm
    from hybridflow.losses.loss import Loss, losses

    class Mine(Loss): ...

    class Distilling(Algorithm):
        components = ()
        losses = ("mine", "policy")

    monkeypatch.setitem(losses._components, "mine", Mine)
    assert algorithms.components_of(Settings(name="distilling"), Distilling) == ["loss mine"]


def test_a_module_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "no_such_module"]) == 2
    assert "plugins: cannot import 'no_such_module'" in capsys.readouterr().err


def test_an_option_without_its_module_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "fast.yaml").write_text("name: mine\nadvantage: {name: grpo}\n")
    assert main(["algorithms", "-cd", str(tmp_path)]) == 0
    assert "fast\t\t\tof the algorithm mine: name its module too" in capsys.readouterr().out.splitlines()
    (tmp_path / "algorithm" / "fast.yaml").write_text("samples_per_prompt: 2\n")
    assert main(["algorithms", "-cd", str(tmp_path)]) == 2
    assert "algorithm=fast: name must be given" in capsys.readouterr().err
