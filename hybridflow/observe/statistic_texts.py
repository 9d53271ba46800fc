"""Statistics of graded answers as texts: each number with its standard error, and how two models compare."""

from __future__ import annotations

from collections.abc import Mapping

ERROR = "_se"  # ends the name of a standard error


def with_errors(numbers: Mapping[str, float]) -> dict[str, str]:
    """Return the statistics as texts by name: each with its standard error, if it has one; failures if there are any.

    Names may have a set before the statistic and a source behind it: `stories/accuracy/easy`.
    """
    texts = {}
    for name, value in numbers.items():
        parts = name.split("/")
        if any(part.endswith(ERROR) for part in parts) or ("failed_grades" in parts and not value):
            continue
        errors = ("/".join([*parts[:at], part + ERROR, *parts[at + 1 :]]) for at, part in enumerate(parts))
        error = next((numbers[its] for its in errors if its in numbers), None)
        texts[name] = f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
    return texts


def comparison_text(models: tuple[str, str], difference: float, error: float, p_value: float, questions: float) -> str:
    """Say how far the second of two models is from the first, as `answer_statistics.Comparison` has it."""
    return (
        f"{models[1]} against {models[0]}: {difference:+.3f} ± {error:.3f} in accuracy on {questions:.0f} questions "
        f"(paired; p = {p_value:.2g} if they are alike)"
    )
