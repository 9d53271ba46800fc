"""Names of metrics that docs/metrics.md has in its tables, and those that it has not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
ANY = {"ROLE": r"(?:actor|critic|cost_critic|reward_model|reference|reward|cost)", "METHOD": r"\w+", "@K": r"@\d+"}
ANY |= dict.fromkeys(("METRIC", "SOURCE", "SET", "GRADER", "PART", "POOL"), r"[^/]+")
FIRST_CELL = re.compile(r"^\|([^|]*)\|", re.MULTILINE)


@lru_cache
def told() -> frozenset[str]:
    """Names in the first cells of the tables, as they stand there."""
    cells = FIRST_CELL.findall(PAGE.read_text(encoding="utf-8"))
    return frozenset(name for cell in cells for name in re.findall(r"`([^`]+/[^`]+)`", cell))


@lru_cache
def _matcher() -> re.Pattern[str]:
    """What a name must be, with the words of `ANY` in it for whatever they stand for."""
    forms = []
    for name in sorted(told()):
        parts = re.split(rf"({'|'.join(ANY)})", name)
        forms.append("".join(ANY.get(part, re.escape(part)) for part in parts))
    return re.compile("|".join(forms))


def untold(names: Iterable[str]) -> list[str]:
    """Those of these names of `metrics.jsonl` that stand in no table."""
    return sorted(name for name in names if name != "step" and not _matcher().fullmatch(name))
