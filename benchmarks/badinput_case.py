"""A row of `benchmarks.badinput`, and how its files are written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

LIMIT_S = 15.0

Writer = Callable[[Path], None]
"""Writes what a row needs into its folder."""

# Settings of a run on rows; `models/plain` has a token for each printable character, `models/chat` a template too.
RUN = (
    "algorithm=grpo", "actor=small", "actor.model.path=models/plain", "rollout=short", "reward=exact", "trainer=trial",
    "run.root=runs", "run.name=bad", "algorithm.samples_per_prompt=2", "algorithm.prompts_per_step=2",
)  # fmt: skip


def nothing(folder: Path) -> None:
    """Write nothing."""


@dataclass(frozen=True)
class Case:
    """Wrong input.

    Attributes:
        said: what the command must say, a regular expression.
        write: makes the files that it reads.
        status: the exit status that is promised; 0 where an odd input is none that is wrong.
        starts_nothing: whether no run folder may be made.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    said: str
    write: Writer = nothing
    status: int = 2
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    starts_nothing: bool = True


def train(*settings: str) -> tuple[str, ...]:
    """Return the arguments of a run on the registered task addition."""
    return ("train", *RUN, "task=addition", "actor.model.path=models/addition", *settings)


def on_rows(path: str, *settings: str) -> tuple[str, ...]:
    """Return the arguments of a run on a file of rows."""
    return ("train", *RUN, "task=rows", f"task.options.path={path}", *settings)


def lines(name: str, *rows: Any) -> Writer:
    """Write JSON lines; a text is a line as it stands."""
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return content(name, text.encode("utf-8", "surrogatepass"))


def content(name: str, data: bytes | str) -> Writer:
    """Write a file."""

    def write(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def both(*writers: Writer) -> Writer:
    """Write all of them."""

    def write(folder: Path) -> None:
        for writer in writers:
            writer(folder)

    return write


GOOD = tuple({"question": f"{number}+1=", "answer": str(number + 1)} for number in range(40))
"""Rows with nothing wrong."""
GOOD_TEXT = "".join(json.dumps(row) + "\n" for row in GOOD)
GOODS = lines("rows.jsonl", *GOOD)
PACKED = content("rows.jsonl.gz", gzip.compress(GOOD_TEXT.encode(), mtime=0))


def data(name: str, said: str, write: Writer, *settings: str, path: str = "rows.jsonl", **more: Any) -> Case:
    """Return a run on a file of rows."""
    return Case(f"data: {name}", "data", on_rows(path, *settings), said, write, **more)
