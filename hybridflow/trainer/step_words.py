"""What a user is told of a step and of a validation, in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hybridflow.config.schema import Config
from hybridflow.errors import counted
from hybridflow.tasks.grades import GRADES
from hybridflow.trainer.chosen_rows import HeldOut
from hybridflow.trainer.journal_folder import REUSED, told
from hybridflow.trainer.progress import without_advantages


def of_step(config: Config, step: int, metrics: Mapping[str, float], folder: Path) -> Iterator[str]:
    """Yield what is worth a word of a step: rows that were in the journal or are in no file, and nothing learned.

    Args:
        folder: of the run.
    """
    for line in told(metrics):
        yield f"step {step}: {line}"
    yield from _of_unwritten(step, metrics.get("rollout/unwritten_rows", 0), "rows", folder)
    if metrics.get("rollout/kept_rows") == 0:
        yield f"step {step}: {nothing_left(config, metrics)}"
    elif without_advantages(metrics):
        yield f"step {step}: all advantages are 0, so its rewards taught nothing (reward/std)"


def of_validation(
    steps: int, found: Mapping[str, float], sets: Sequence[HeldOut], judged: str, folder: Path
) -> Iterator[str]:
    """Yield what a validation has found.

    Args:
        steps: how many have been taken.
        judged: what accuracy is of.
        folder: of the run.
    """
    grade = f", mean grade {found['mean_grade']:.3f}" if "mean_grade" in found else ""
    failed = found.get("failed_grades", 0)
    without = f"; {failed:.0f} answers have no grade and are in neither" if failed else ""
    others = "".join(f"; {one.name} {found[f'{one.name}/accuracy']:.3f}" for one in sets if one.name)
    after = f"after {counted(steps, 'step')}: accuracy {found['accuracy']:.3f}{grade}"
    yield f"{after} on held-out {judged}{without}{others}"
    yield from _of_unwritten(steps, _of_all_sets(found, "unwritten_rows"), "answers", folder)
    yield from told({REUSED: _of_all_sets(found, "reused_rows")})


def nothing_left(config: Config, metrics: Mapping[str, float]) -> str:
    """Explain why a step learned nothing, as far as its metrics say."""
    part = config.algorithm.rollout_filter.name
    rows = metrics.get("rollout/rows", 0.0)
    failed = sum(metrics.get(f"{kind.prefix}failed_grades", 0.0) for kind in GRADES.values())
    by_filter = f"; algorithm.rollout_filter.name = {part}" if part != "none" else ""
    by_grades = f"; {failed:.0f} grades failed" if failed else ""
    masked = metrics.get("rollout/masked_rows", 0.0)
    by_mask = f"; loss_mask leaves {masked:.0f} of them no token" if masked else ""
    return f"none of its {rows:.0f} rows was left to learn from{by_filter}{by_grades}{by_mask}"


def _of_all_sets(found: Mapping[str, float], count: str) -> float:
    return sum(value for name, value in found.items() if name.rpartition("/")[2] == count)


def _of_unwritten(step: int, number: float, what: str, folder: Path) -> Iterator[str]:
    """Tell that rows were learned from, or judged, which the disk had no room for."""
    if number:
        yield f"warning: step {step}: {number:.0f} {what} are not written: there is no room for them in {folder}"
