"""docs/migrate.md: each key of ours is one of the schema with a value that it takes, and each of TRL's is TRL's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridflow.cli.names import names_for
from hybridflow.config import compose, setting_keys
from hybridflow.losses.advantages import advantages
from hybridflow.losses.policy_losses import policy_losses
from hybridflow.options import taken_by
from hybridflow.tasks import tasks
from tests.docs.blocks import ROOT, blocks, write_files
from tests.docs.conftest import Problems

TEXT = (ROOT / "docs/migrate.md").read_text(encoding="utf-8")
SECTIONS = ("From verl", "From TRL", "From OpenRLHF")
GROUPS = ("algorithm", "task", "placement", "trainer")
KEYS = {setting.key: setting for setting in setting_keys.declared()}
COMPONENTS = {"algorithm.advantage": advantages, "algorithm.policy_loss": policy_losses}


def rows(section: str) -> Iterator[tuple[list[str], list[str]]]:
    """Keys of theirs and of ours in each row of a table."""
    body = TEXT.partition(f"## {section}\n")[2].partition("\n## ")[0]
    for line in body.splitlines():
        if line.startswith("| ") and not line.startswith(f"| {section.removeprefix('From ')} |"):
            theirs, ours, _ = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:4])
            yield theirs, ours


OURS = sorted({ours for section in SECTIONS for _, keys in rows(section) for ours in keys})


@pytest.mark.parametrize("section", SECTIONS)
def test_what_people_set_is_there(section: str) -> None:
    table = list(rows(section))
    assert len(table) >= 38
    assert all(theirs for theirs, _ in table) and [theirs for theirs, ours in table if not ours] == []


@pytest.mark.parametrize("ours", OURS)
def test_each_of_ours_can_be_set(ours: str) -> None:
    key, equals, value = ours.partition("=")
    if key in GROUPS:
        assert not equals or value in compose.options(key), ours
        return
    if ".options." in key:
        above, _, option = key.partition(".options.")
        known = [COMPONENTS[above].get(name) for name in COMPONENTS[above]] if above in COMPONENTS else []
        known += [tasks.get("rows")] if above == "task" else []
        assert any(option.partition(".")[0] in taken_by(component) for component in known), ours
        return
    role, _, rest = key.partition(".")
    setting = KEYS.get(key) or (KEYS.get(f"{setting_keys.ROLE}.{rest}") if role in setting_keys.roles() else None)
    assert setting is not None, f"{key} is no key"
    names = names_for(key)
    assert not equals or value in (names() if names else setting.kind.split(", ")), ours


def test_trls_keys_are_trls() -> None:
    folder = Path(find_spec("transformers").submodule_search_locations[0])  # type: ignore[union-attr, index]
    trl = next(ROOT.glob(".venv/parity/trl/trainer"), None)
    if trl is None:
        pytest.skip("make setup puts TRL there")
    files = [trl / f"{name}_config.py" for name in ("base", "grpo", "dpo", "sft")]
    theirs = set[str]()
    for file in (*files, folder / "training_args.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                theirs.add(node.target.id)
    of_trainers = {"model", "train_dataset", "eval_dataset", "reward_funcs"}
    named = {key for keys, _ in rows("From TRL") for key in keys}
    assert named - theirs == of_trainers


def test_the_command_line_in_place_of_verls_composes() -> None:
    (text,) = [block.text for block in blocks("docs/migrate.md") if block.text.startswith("hybridflow train algorithm")]
    config = compose.compose("train", text.replace("\\\n", " ").split()[2:]).to_config()
    assert (config.algorithm.samples_per_prompt, config.placement.pools) == (5, {"main": 8})
    assert config.task.options["held_out_path"] == "gsm8k/test.parquet" and config.reward.grader == "last_number"


@pytest.mark.processes
def test_its_grader_works(tmp_path: Path, problems: Problems) -> None:
    assert write_files("docs/migrate.md", tmp_path) == ["my_graders.py"]
    command = ["hybridflow", "train", "experiment=addition", "plugins=[my_graders]", "reward.grader=mine"]
    (found,) = problems([command])
    assert [line for line in found if "model" not in line] == []
