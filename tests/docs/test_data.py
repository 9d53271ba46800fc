"""docs/data.md: its commands compose, and read files of the formats that they are said to read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridflow.algorithms import algorithms
from hybridflow.cli.launch import composed
from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.tasks import build
from hybridflow.tasks.row_formats import NAMES
from hybridflow.tasks.rows_task import RowsTask
from hybridflow.trainer.chosen_rows import rows_for, split_of
from tests.docs.blocks import ROOT, blocks

PAGE = "docs/data.md"
USER = {"role": "user", "content": "2+2?"}
RIGHT = {"role": "assistant", "content": "4"}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "gsm8k.jsonl": ("gsm8k", {"question": "2+2?", "answer": "Add.\n#### 4"}),
    "verl/train.parquet": ("verl", {"data_source": "x", "prompt": [USER], "reward_model": {"ground_truth": "4"}}),
    "trl.jsonl": ("trl", {"prompt": [USER], "answer": "4"}),
    "openrlhf.jsonl": ("openrlhf", {"input": "2+2?", "label": "4"}),
    "alpaca_data.json": ("alpaca", {"instruction": "Add.", "input": "2, 2", "output": "4"}),
    "sharegpt.json": ("sharegpt", {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "4"}]}),
    "messages.jsonl": ("messages", {"messages": [USER, RIGHT]}),
    "pairs.jsonl": ("trl", {"prompt": [USER], "chosen": [RIGHT], "rejected": [{**RIGHT, "content": "5"}]}),
}


def write(file: Path, row: dict[str, Any]) -> None:
    """Write a file of four rows that ask different things."""
    rows = [
        json.loads(json.dumps(row).replace("?", f"+{number}?").replace("2, 2", f"2, {number}")) for number in range(4)
    ]
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        text = json.dumps(rows) if file.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(text)


def commands() -> list[list[str]]:
    """The commands that are whole, as arguments, the page's variable replaced."""
    lines = [line for block in blocks(PAGE) if block.language == "bash" for line in block.text.splitlines()]
    [mine] = [shlex.split(line, comments=True)[0].removeprefix("MINE=") for line in lines if line.startswith("MINE=")]
    whole = [line.replace("$MINE", mine) for line in lines if line.startswith("hybridflow") and "…" not in line]
    return [shlex.split(line, comments=True)[1:] for line in whole if line.split()[1] not in ("data", "evaluate")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_reads_rows_of_its_format(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subcommand, *overrides = command
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = composed(subcommand, overrides, None).to_config()
    name, row = ROWS[config.task.options["path"]]
    write(Path(config.task.options["path"]), row)
    task = build(config.task.name, any_text_tokenizer(), config.task.options)
    assert isinstance(task, RowsTask) and task.mapper.form and task.mapper.form.name == name
    algorithm = algorithms.get(config.algorithm.name)
    assert len(rows_for(algorithm, task, split_of(algorithm), [0])) == 1


def test_every_format_is_on_the_page_and_every_file_in_a_command() -> None:
    told = re.findall(r"^\| `(\w+)` \| `", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert list(dict.fromkeys(told)) == list(NAMES)
    read = {argument.partition("options.path=")[2] for command in commands() for argument in command}
    assert read - {""} == set(ROWS)
