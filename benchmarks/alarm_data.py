"""Recorded metrics of runs, as small files that tests replay: `benchmarks/data/alarms/KIND/NAME.json`.

A file has `command`, what was run, and `metrics`: by name a value for each step, with five digits; null where it was
not finite, and "" where the step did not measure it. Seconds of the run so far and validations are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data/alarms"
LEFT_OUT = ("validation/", "timing_s/run/", "perf/goodput")
ABSENT = ""
DIGITS = 5

Line = dict[str, Any]


def compact(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the metrics of the steps among lines of `metrics.jsonl`, a list each; of a step that was made again the
    last.
    """
    by_step = {line["step"]: line for line in lines if not any(name.startswith("validation/") for name in line)}
    steps = [by_step[step] for step in sorted(by_step)]
    names = sorted({name for line in steps for name in line if not name.startswith(LEFT_OUT)})
    return {name: [_short(line.get(name, ABSENT)) for line in steps] for name in names}


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 10**DIGITS else short


def write(kind: str, name: str, command: str, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write a recording, and return its file."""
    file = DATA / kind / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in compact(lines).items()]
    text = f'{{\n "command": {json.dumps(command)},\n "metrics": {{\n' + ",\n".join(columns) + "\n }\n}\n"
    beside = file.with_suffix(".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
    return file


def read(file: Path) -> list[Line]:
    """Read a recording as the lines of `metrics.jsonl` that it was made of."""
    columns: dict[str, list[Any]] = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    length = max(map(len, columns.values()), default=0)
    whole = ({name: values[place] for name, values in columns.items()} for place in range(length))
    return [{name: value for name, value in line.items() if value != ABSENT} for line in whole]


def recorded(kind: str) -> dict[str, list[Line]]:
    """Read the recordings of a kind, by name."""
    return {file.stem: read(file) for file in sorted((DATA / kind).glob("*.json"))}
