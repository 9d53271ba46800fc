"""The rows of a run that the page shows: whole groups, of steps that are spread over the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hybridflow.observe.json_lines import Record
from hybridflow.observe.report.choices import clipped, evenly, short, told
from hybridflow.observe.run_records import RunRecords

MAX_TEXT = 4000  # characters of a prompt or a response
MAX_ENTRY = 400  # characters of another entry of a row
MAX_TOKENS = 800  # of a row whose values are shown
MAX_TOKEN = 200  # characters of one: those of vocabularies have fewer, those of a file that was edited any number
BY_TOKEN = "by_token"  # entry of rows that have values of each token
TEXTS = ("prompt", "response", "rejected", "answer")
NUMBERS = ("rewards", "costs")
PLACED = ("step", "group_id", *TEXTS, *NUMBERS, BY_TOKEN)  # entries that have a place of their own in the page

Key = tuple[int, str]


def rollouts(run: RunRecords, most: int) -> dict[str, Any] | None:
    """Return what the page shows of the rows of a run; None if none were written.

    Args:
        most: characters of JSON, roughly. The first group is there however long it is.

    Returns:
        `groups`: of each its `step`, its number as `group`, `prompt`, `answer` and `rows`; `all_rows`, `all_steps`: how
        many were written.
    """
    sizes: dict[Key, int] = defaultdict(int)
    count = 0
    for key, row in _keyed(run.rows()):
        sizes[key] += _size(row)
        count += 1
    if not sizes:
        return None
    chosen: set[Key] = set()
    left = most
    for key in _in_turn(sizes):
        if sizes[key] <= left or not chosen:
            chosen.add(key)
            left -= sizes[key]
    groups: dict[Key, list[Record]] = defaultdict(list)
    for key, row in _keyed(run.rows({step for step, _ in chosen})):
        if key in chosen:
            groups[key].append(row)
    return {
        "groups": [_group(key, groups[key]) for key in sorted(groups, key=lambda key: key[0])],
        "all_rows": count,
        "all_steps": len({step for step, _ in sizes}),
    }


def _keyed(rows: Iterable[Record]) -> Iterator[tuple[Key, Record]]:
    """Yield rows with the step and the group that they are of; one that has no group is one by itself."""
    alone: Counter[int] = Counter()  # by step, so that their numbers are the same whichever other steps are read
    for row in rows:
        group = row.get("group_id")
        alone[row["step"]] += group is None
        yield (row["step"], f"row {alone[row['step']]}" if group is None else str(group)), row


def _size(row: Record) -> int:
    """Return about how many characters a row takes in the page."""
    texts = sum(min(len(str(row.get(name, ""))), MAX_TEXT) for name in TEXTS)
    values = row.get(BY_TOKEN)
    texts_of_tokens = values.get("text") if isinstance(values, dict) else None
    tokens = min(len(texts_of_tokens), MAX_TOKENS) if isinstance(texts_of_tokens, list) else 0
    return 300 + texts + 40 * tokens


def _in_turn(keys: Iterable[Key]) -> Iterator[Key]:
    """Yield the first group of every step, those of steps that are spread over the run first, then the second ones."""
    by_step: dict[int, list[Key]] = defaultdict(list)
    for key in keys:
        by_step[key[0]].append(key)
    steps = sorted(by_step)
    order = [steps[place] for place in evenly(len(steps))]
    for turn in range(max(map(len, by_step.values()), default=0)):
        yield from (by_step[step][turn] for step in order if turn < len(by_step[step]))


def _group(key: Key, rows: list[Record]) -> dict[str, Any]:
    first = rows[0]
    common: dict[str, Any] = {name: told(first[name], MAX_TEXT) for name in ("prompt", "answer") if name in first}
    return {"step": key[0], "group": key[1], **common, "rows": [_row(row, first) for row in rows]}


def _row(row: Record, first: Record) -> dict[str, Any]:
    """Return what is shown of a row, without what it has in common with the first of its group."""
    shown: dict[str, Any] = {
        name: told(row[name], MAX_TEXT)
        for name in TEXTS
        if name in row and (name in ("response", "rejected") or row[name] != first.get(name))
    }
    shown |= {name: short(row[name]) for name in NUMBERS if name in row}
    values = row.get(BY_TOKEN)
    if isinstance(values, Mapping):
        shown["tokens"] = _values(values)
    others = {name: entry for name, entry in row.items() if name not in PLACED}
    shown["more"] = {name: told(entry, MAX_ENTRY) for name, entry in others.items()}
    return shown


def _values(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the texts of tokens and their numbers."""
    lists = {name: column[:MAX_TOKENS] for name, column in values.items() if isinstance(column, list)}
    texts = [clipped(str(text), MAX_TOKEN) for text in lists.pop("text", [])]
    return {"text": texts, **{name: [short(value) for value in column] for name, column in lists.items()}}
