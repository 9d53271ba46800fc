"""JSON that any reader takes."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridflow.observe.plain_json import as_json
from hybridflow.observe.run_folder import RunFolder


def parse_strictly(text: str) -> Any:
    """Refuses what RFC 8259 does."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        (np.float64("inf"), None),
        (torch.tensor(math.nan), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (True, True),
        (None, None),
        ("NaN", "NaN"),
        (torch.tensor(2.0), 2.0),
        (np.array([1.0, np.nan]), [1.0, None]),
        ([1, (math.nan,)], [1, [None]]),
        ({1: math.inf}, {"1": None}),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), "0.5"),
        (1 + 2j, "(1+2j)"),
        (np.complex128(1j), "1j"),
        (np.datetime64("2026-01-01T00:00:00.000000001"), 1767225600000000001),
        (Path("a"), "a"),
    ],
    ids=repr,
)
def test_whatever_was_measured(value: object, expected: object) -> None:
    found = parse_strictly(as_json({"metric": value}))["metric"]
    assert found == expected and type(found) is type(expected)


def test_a_line_of_metrics(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"step": 0, "actor/grad_norm": math.nan, "actor/loss": np.float32("inf"), "actor/lr": np.float64(1e-4)})
    assert parse_strictly((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 0, "actor/grad_norm": None, "actor/loss": None, "actor/lr": 1e-4,
    }  # fmt: skip
