"""What can be an answer: a text, or a number that is written as one."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from hybridflow.errors import shown


def as_text(answer: Any) -> str:
    """Return the text of an answer; a number as it is usually written, a whole one without a decimal point.

    Raises ValueError for what is neither a text nor a finite number.
    """
    if isinstance(answer, np.ndarray) and answer.ndim == 0:
        answer = answer[()]
    if isinstance(answer, np.float16 | np.float32):
        answer = float(str(answer))  # 0.1, and not 0.10000000149011612, which no response says
    elif isinstance(answer, np.generic):
        answer = answer.item()
    if isinstance(answer, str):
        return str(answer)
    finite = answer.is_finite() if isinstance(answer, Decimal) else isinstance(answer, float) and math.isfinite(answer)
    if finite:
        return str(int(answer)) if abs(answer) < 1e16 and answer == int(answer) else str(answer)
    if isinstance(answer, int | Fraction):
        return str(answer)
    raise ValueError(
        f"the answer is {shown(answer)}, of type {type(answer).__name__}; a text or a finite number was expected"
    )
