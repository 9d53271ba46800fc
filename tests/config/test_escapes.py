r"""What \n on the command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridflow import preflight
from hybridflow.config import escapes


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (r'rollout.stop=["\n"]', 'rollout.stop=["\n"]'),
        (r"rollout.stop=[\n]", "rollout.stop=['\n']"),  # what a shell leaves of ["\n"]
        (r"rollout.stop=['\n\n','\tUser:',b]", "rollout.stop=['\n\n','\tUser:',b]"),
        (r'rollout.stop=["\\n"]', r'rollout.stop=["\n"]'),
        (r'rollout.stop=["\\\n"]', 'rollout.stop=["\\\n"]'),
        (r"+task.options={end:'\r\n',n:1}", "+task.options={end:'\r\n',n:1}"),
        (r'+task.options.text="it\'s \n"', '+task.options.text="it\\\'s \n"'),
        (r'rollout.stop=["\n"],["\n\n"]', 'rollout.stop=["\n"],["\n\n"]'),
        (r"hydra.run.dir='a\n'", r"hydra.run.dir='a\n'"),
        (r"+task.options.pattern='\d+\w'", r"+task.options.pattern='\d+\w'"),
        ("rollout.stop=['\n']", "rollout.stop=['\n']"),
        ("-cd", "-cd"),
        (r"folder\new", r"folder\new"),
        (r"rollout.stop=[\n", r"rollout.stop=[\n"),
    ],
)
def test_escapes_are_carried_out(given: str, meant: str) -> None:
    assert escapes.meant([given]) == [meant]


def test_a_newline_reaches_the_settings(tmp_path: Path) -> None:
    config = preflight.load(overrides=["experiment=addition", r'rollout.stop=["\n",\t,"\\n"]'])
    assert config.rollout.stop == ["\n", "\t", r"\n"]
    file = tmp_path / "rollout/mine.yaml"
    file.parent.mkdir()
    file.write_text("stop: [\"\\n\", '\\n']\nmax_response_tokens: 8\n")
    config = preflight.load(overrides=["experiment=addition", "rollout=mine"], config_dir=tmp_path)
    assert config.rollout.stop == ["\n", r"\n"], "YAML's own rules"


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("actor.model.path=~/models/m", "actor.model.path='~/models/m'"),
        ("run.name=été 2", "run.name='été 2'"),
        ("++run.name=a&b", "++run.name='a&b'"),
        ("run.seed=3", "run.seed=3"),
        ("actor.model.path=/models/m-1.5_b", "actor.model.path=/models/m-1.5_b"),
        ("run.name='é'", "run.name='é'"),
        ("plugins=[é]", "plugins=[é]"),  # structure is the user's to write
        ("run.seed=é,ü", "run.seed=é,ü"),
        ("run.name=${run.é}", "run.name=${run.é}"),
        ("~task.options", "~task.options"),
        ("--config-dir=é", "--config-dir=é"),
        ("run.=1", "run.=1"),  # no quotes help it
    ],
)
def test_a_text_that_needs_quotes_gets_them(given, quoted):
    assert escapes.quoted([given]) == [quoted]


def test_paths_know_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ["actor.model.path=~/m", "run.root='~/runs'", "trainer.resume=~/r", "run.name=à~"]
    config = preflight.load("sft", ["experiment=addition_warmup", *paths])
    assert config.actor.model.path == f"{tmp_path}/m"
    assert (config.run.root, config.trainer.resume, config.run.name) == (f"{tmp_path}/runs", f"{tmp_path}/r", "à~")
