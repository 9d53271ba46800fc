"""docs/placement.md: its pictures are of its experiment, its tables are complete, its lines are printed."""

from __future__ import annotations

import json
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hybridflow.cli import main
from hybridflow.config.compose import configs_dir
from hybridflow.planning.hardware_files import hardware_names
from tests.docs.blocks import ROOT, blocks, commands

PAGE = "docs/placement.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
PICTURES = runpy.run_path(str(ROOT / "docs/images/plan.py"))


@pytest.fixture(scope="module", autouse=True)
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working directory with the page's files and the sizes of its model."""
    folder = tmp_path_factory.mktemp("placement")
    PICTURES["prepare"](folder)
    before = os.getcwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def test_the_output_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """But for figures of memory and time, which are as good as the simulators are."""
    [command] = [command for command in commands(PAGE, "hybridflow plan") if "experiment=sums_8b" in command]
    assert main(command[1:]) == 0
    printed = picture(capsys.readouterr().out)
    [shown] = [block.text for block in blocks(PAGE) if block.title == "output"]
    assert len(printed) > 10 and printed == picture(shown)


def picture(text: str) -> list[str]:
    """What a plan says of slots."""
    lines = text.partition("\nmemory")[0].splitlines()
    return [line.rstrip() for line in lines if not line.startswith("hardware")]


@pytest.mark.parametrize("name", PICTURES["PLANS"])
def test_the_pictures_are_of_such_plans(name: str) -> None:
    assert main(["plan", *PICTURES["PLANS"][name], "--svg", "drawn.svg", "--force"]) == 0
    drawn, kept = (slots(file) for file in (Path("drawn.svg"), ROOT / f"docs/images/{name}.svg"))
    assert len(drawn) > 30 and drawn == kept, "out of date: python docs/images/plan.py"


def slots(file: Path) -> list[str | None]:
    """What a drawing says of slots, in order."""
    texts = [node.text for node in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]
    return texts[: next(at for at, text in enumerate(texts) if (text or "").startswith("t tensor"))]


def test_the_line_of_many_nodes_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = [block.text for block in blocks(PAGE) if block.text.startswith("  … nodes 1–15")]
    assert main(["plan", *PICTURES["COMMON"], "placement.pools.main=128"]) == 0
    assert line in capsys.readouterr().out


def test_the_table_of_keys_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *PICTURES["COMMON"], "placement.pools.main=16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = dict(re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", TEXT.partition("## As JSON")[2], re.MULTILINE))
    assert [key for cell in rows for key in named(cell)] == [*found]
    for key in ("pools", "roles"):
        assert {*next(iter(found[key].values()))} <= {*named(rows[f"`{key}`"])}
    assert {*found["memory"][0]} - {"pool"} <= {*named(rows["`memory`"])}
    for key in ("bytes", "step"):
        assert {*(found[key] or ())} <= {*named(rows[f"`{key}`"])}


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_tables_have_every_placement_and_hardware() -> None:
    for name in (*hardware_names(), *(file.stem for file in (configs_dir() / "placement").glob("*.yaml"))):
        assert re.search(rf"^\| [^|]*`{name}`", TEXT, re.MULTILINE), name


def test_with_the_share_that_the_page_gives_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *PICTURES["COMMON"], "placement.pools.main=16", "rollout.gpu_memory_fraction=0.48"]) == 0
    assert "warning" not in capsys.readouterr().out
