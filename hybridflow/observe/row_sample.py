"""A row of a run on the screen: texts that models write are escaped, and cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hybridflow.observe.json_lines import Record
from hybridflow.observe.run_records import finite
from hybridflow.observe.terminal import one_line

NAME = 200  # characters of a name, an answer or an error


def sample(row: Record, width: int, lines: int) -> RenderableType:
    """Draw a row: what was asked, what was said, and what it was given for it.

    Args:
        lines: that each text has at most.
    """
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    room = max(8, width - 10)
    for name in ("prompt", "response", "rejected"):
        if row.get(name) is not None:
            table.add_row(name, cut(str(row[name]), room, lines))
    grades = " · ".join(_grades(row))
    table.add_row("grades", cut(grades, room, 2, "bold"))
    return table


def _grades(row: Record) -> Iterator[str]:
    """Yield what a row was given, the one number first, then those of each grader."""
    yield f"reward {_number(row['rewards'])}" if "rewards" in row else "not graded"
    if "costs" in row:
        yield f"cost {_number(row['costs'])}"
    grades = row.get("grades")
    for name, grade in grades.items() if isinstance(grades, dict) else ():
        yield f"{name} {_number(grade)}"
    for name in ("answer", "finish_reason", "environment_failure"):
        if row.get(name) not in (None, ""):
            yield f"{name.replace('_', ' ')} {str(row[name])[:NAME]}"


def _number(value: object) -> str:
    number = finite(value)
    return "none" if number is None else f"{number:.4g}"


def cut(text: str, width: int, lines: int, style: str = "") -> Text:
    """Escape a text and cut it to so many lines of a width; the last one says how many characters are missing."""
    rows: list[list[str]] = [[]]
    used = 0
    shown = 0
    for char in text[: lines * width]:  # some have no width
        piece = one_line(char)
        if used + cell_len(piece) > width:
            if len(rows) == lines:
                break
            rows.append([])
            used = 0
        rows[-1].append(piece)
        used += cell_len(piece)
        shown += 1
    while shown < len(text):
        more = f"… +{len(text) - shown}"
        if not rows[-1] or used + len(more) <= width:
            rows[-1].append(more)
            break
        used -= cell_len(rows[-1].pop())
        shown -= 1
    return Text("\n".join(map("".join, rows)), style=style, no_wrap=True, overflow="crop")
