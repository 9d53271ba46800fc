"""The timeline of a run as the page draws it: bars by pool and rank, of steps that are spread over the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from hybridflow.observe.report.choices import evenly
from hybridflow.observe.timeline import CONTROLLER, CallSpan

MAX_STEPS = 24  # of a run that are shown


@dataclass
class Window:
    """What ran from the begin of a step to that of the next which was kept.

    Attributes:
        step: None: what came before the first step.
        began, until: in seconds since the epoch.
        seconds: that the step took.
    """

    step: int | None
    began: float
    seconds: float
    until: float = inf
    spans: list[CallSpan] = field(default_factory=list)


def timeline(spans: Sequence[CallSpan], most: int) -> dict[str, Any] | None:
    """Return what the page draws of the calls of a run; None if there are none.

    Args:
        most: bars. Steps are left out until these are enough; of a single step that has more, its shortest bars.

    Returns:
        `lanes`: pool and rank of each; `names`: of calls, `ROLE.METHOD`; `steps`: of each `step`, the `seconds` that it
        took and its `bars` (lane, name, begin since that of the step and length, both in microseconds), and how many
        `all` are; `kept`: how many steps the run has written.
    """
    windows = _windows(spans)
    chosen = sorted(evenly(len(windows))[:MAX_STEPS])
    for place in chosen:
        windows[place].spans = [span for span in spans if span.pool != CONTROLLER and _in(span, windows[place])]
    full = [windows[place] for place in chosen if windows[place].spans]
    left = most
    shown: list[Window] = []
    for place in evenly(len(full)):
        if len(full[place].spans) <= left or not shown:
            left -= len(full[place].spans)
            shown.append(full[place])
    if not shown:
        return None
    called = [span for window in shown for span in window.spans]
    lanes = sorted({(span.pool, span.rank) for span in called})
    names = sorted({span.name for span in called})
    shown.sort(key=lambda window: window.began)
    steps = [_drawn(window, lanes, names, most) for window in shown]
    return {"lanes": lanes, "names": names, "steps": steps, "kept": len(windows)}


def _windows(spans: Sequence[CallSpan]) -> list[Window]:
    """Find the steps that were written; what ran before the first of them is a window too."""
    steps = sorted((span for span in spans if span.pool == CONTROLLER), key=lambda span: span.began)
    windows = [Window(span.step, span.began, span.seconds) for span in steps]
    if windows and any(span.pool != CONTROLLER and span.began < windows[0].began for span in spans):
        windows.insert(0, Window(None, -inf, 0.0))
    for window, following in pairwise(windows):
        window.until = following.began
    return windows


def _in(span: CallSpan, window: Window) -> bool:
    return span.began < window.until and span.began + span.seconds > window.began


def _drawn(window: Window, lanes: Sequence[tuple[str, int]], names: Sequence[str], most: int) -> dict[str, Any]:
    """Return what is drawn of a step."""
    longest = sorted(window.spans, key=lambda span: -span.seconds)[:most]
    start = window.began if window.step is not None else min(span.began for span in longest)
    lane_of = {lane: place for place, lane in enumerate(lanes)}
    name_of = {name: place for place, name in enumerate(names)}
    bars = [
        (
            lane_of[span.pool, span.rank],
            name_of[span.name],
            round((span.began - start) * 1e6),
            round(span.seconds * 1e6),
        )
        for span in sorted(longest, key=lambda span: span.began)
    ]
    return {"step": window.step, "seconds": window.seconds, "bars": bars, "all": len(window.spans)}
