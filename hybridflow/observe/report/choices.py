"""What is kept where not everything can be: an even choice, shorter texts, numbers with as many digits as are read."""

from __future__ import annotations

from collections import deque

from hybridflow.observe.plain_json import as_json

DIGITS = 5  # of numbers in the page


def evenly(count: int) -> list[int]:
    """Order the numbers below `count` so that those of every beginning lie spread out: first, last, then middles."""
    order = list(range(min(count, 1)))
    if count > 1:
        order.append(count - 1)
    between = deque([(0, count - 1)])
    while between:
        low, high = between.popleft()
        middle = (low + high) // 2
        if low < middle < high:
            order.append(middle)
            between += [(low, middle), (middle, high)]
    return order


def short(value: object) -> float | int | None:
    """Round a number for the page; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) < 10**15:
        return value
    try:
        rounded = float(f"{float(value):.{DIGITS}g}")
    except OverflowError:  # JSON's integers have any number of digits
        return None
    if rounded - rounded != 0:  # an infinity, or no number
        return None
    whole = int(rounded)
    return whole if whole == rounded and abs(whole) < 10**DIGITS else rounded


def clipped(text: str, most: int) -> str:
    """Leave the middle of a long text out, and say so: its beginning says what it is, its end what it came to."""
    if len(text) <= most:
        return text
    head = most // 3
    tail = most - head
    return f"{text[:head]}\n[… {len(text) - most} characters are not shown …]\n{text[-tail:]}"


def told(value: object, most: int) -> str:
    """Return any value as text of about `most` characters at most: JSON, unless it is text."""
    try:
        text = value if isinstance(value, str) else as_json(value, ensure_ascii=False)
    except RecursionError:  # of brackets in brackets
        text = "…"
    return clipped(text, most)
