"""Statistics as texts: each with its standard error, failures where there are any."""

from __future__ import annotations

from hybridflow.observe.statistic_texts import with_errors


def test_numbers_are_told_with_their_errors_whatever_set_or_source_they_are_of() -> None:
    numbers = {
        **{"accuracy": 0.5, "accuracy_se": 0.1, "pass@2": 0.75, "failed_grades": 0.0, "failed_grades/hard": 2.0},
        **{"accuracy/hard": 0.25, "accuracy_se/hard": 0.2, "stories/accuracy/a_b": 1.0, "stories/accuracy_se/a_b": 0.0},
    }
    assert with_errors(numbers) == {
        **{"accuracy": "0.500 ± 0.100", "pass@2": "0.750", "failed_grades/hard": "2.000"},
        **{"accuracy/hard": "0.250 ± 0.200", "stories/accuracy/a_b": "1.000 ± 0.000"},
    }
