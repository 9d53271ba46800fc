"""Draws schedules.svg, what each schedule does when, by its state machine: `python docs/images/schedules.py`."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from hybridflow.scheduling import (
    SCHEDULES,
    Admit,
    Decision,
    Event,
    Learned,
    RowFinished,
    Scheduler,
    Started,
    Sync,
    Take,
    WeightsPublished,
    policy_of,
)

PROMPTS_PER_STEP = 4
ROW_TIMES = (2, 3, 2, 8, 3, 2, 7, 2, 2, 9, 3, 2)  # of the prompts of three steps, each with one row
LEARN_TIME, SYNC_TIME = 4.0, 0.5
VERSIONS = ("#2f6fb2", "#4d9f6f", "#e0953c")
LEARNER, SYNC, INK, PALE = "#8b93a0", "#1d2733", "#1d2733", "#5a6472"
LEFT, UNIT, LANE, GAP = 150, 19, 13, 34
TITLES = {
    "sync": "generate, then learn",
    "one_step_off": "the next step's prompts meanwhile",
    "async": "as the bound of staleness has room; rows go on with new weights",
    "stream": "learn from each minibatch as it is full, of one version",
}


@dataclass
class Span:
    """Something that took from one time to another; of a row: its lane and the version that sampled."""

    begin: float
    end: float
    label: str = ""
    lane: int = 0
    version: int = 0


@dataclass
class Run:
    """What a schedule did, as spans."""

    rows: list[Span] = field(default_factory=list)
    learned: list[Span] = field(default_factory=list)
    syncs: list[Span] = field(default_factory=list)

    @property
    def end(self) -> float:
        """When the last step was learned from."""
        return max(span.end for span in self.learned)


class Simulation:
    """Drives a scheduler by a clock. A prompt has one row, which takes its time; any number are generated at once."""

    def __init__(self, name: str) -> None:
        self.run = Run()
        self.version = 0
        self._scheduler = Scheduler(policy_of(name, PROMPTS_PER_STEP), len(ROW_TIMES))
        self._events: list[tuple[float, int, Event]] = []
        self._order = count()  # of events at one time: as they were foreseen
        self._going: dict[int, Span] = {}
        self._now = 0.0
        self._take_in(Started())
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            self._take_in(event)

    def _take_in(self, event: Event) -> None:
        match event:
            case RowFinished(prompt):
                self._going.pop(prompt).end = self._now
            case WeightsPublished(version):
                self._renew(version)
        for decision in self._scheduler.take_in(event):
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Admit(prompt, ((row, attempt),)):
                self._begin(prompt, self._free_lane(), str(prompt))
                self._after(ROW_TIMES[prompt], RowFinished(prompt, row, attempt))
            case Take(prompts, step, _):
                took = LEARN_TIME * len(prompts) / PROMPTS_PER_STEP
                self.run.learned.append(Span(self._now, self._now + took, f"step {step}"))
                self._after(took, Learned())
            case Sync(version, _):
                self.run.syncs.append(Span(self._now, self._now + SYNC_TIME))
                self._after(SYNC_TIME, WeightsPublished(version))

    def _after(self, time: float, event: Event) -> None:
        heapq.heappush(self._events, (self._now + time, next(self._order), event))

    def _begin(self, prompt: int, lane: int, label: str) -> None:
        self._going[prompt] = Span(self._now, self._now, label, lane, self.version)
        self.run.rows.append(self._going[prompt])

    def _free_lane(self) -> int:
        taken = {span.lane for span in self._going.values()}
        return next(lane for lane in range(len(ROW_TIMES)) if lane not in taken)

    def _renew(self, version: int) -> None:
        """Let rows that go on have a span of the new version."""
        self.version = version
        for prompt, span in list(self._going.items()):
            span.end = self._now
            self._begin(prompt, span.lane, "")


def picture() -> str:
    """Draw the SVG."""
    runs = {name: Simulation(name).run for name in SCHEDULES}
    lines: list[str] = []
    y = 20
    for name, run in runs.items():
        lines += panel(name, run, y)
        y += GAP + LANE * (lanes(run) + 2) + 22
    width = LEFT + int(UNIT * max(run.end for run in runs.values())) + 40
    lines += legend(y)
    title = "Three steps of four prompts by each schedule: rows that are generated, steps that are learned from, syncs"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 40}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="13" role="img" aria-label="{title}">',
            f'<rect width="{width}" height="{y + 40}" rx="10" fill="#fbfbf9"/>',
            f'<g fill="{INK}">',
            *lines,
            "</g>",
            "</svg>\n",
        ]
    )


def lanes(run: Run) -> int:
    """Return how many rows were generated at once, at most."""
    return 1 + max(span.lane for span in run.rows)


def panel(name: str, run: Run, y: int) -> Iterator[str]:
    """Draw a schedule."""
    yield f'<text x="20" y="{y + 14}" font-size="16" font-weight="bold">{name}</text>'
    yield f'<text x="{LEFT}" y="{y + 14}" fill="{PALE}">{TITLES[name]}</text>'
    top = y + GAP - 8
    learner = top + LANE * lanes(run) + 5
    yield f'<text x="20" y="{top + 11}">generation</text>'
    yield f'<text x="20" y="{learner + 13}">learner</text>'
    for span in run.rows:
        yield bar(span, top + LANE * span.lane, LANE - 2, VERSIONS[span.version])
    for span in run.learned:
        yield bar(span, learner, 17, LEARNER)
    for span in run.syncs:
        x = LEFT + UNIT * span.end
        yield f'<path d="M{x:g} {top - 3}V{learner + 19}" stroke="{SYNC}" stroke-dasharray="2 2"/>'


def bar(span: Span, y: int, height: int, color: str) -> str:
    """Draw a span with its label, if that has room."""
    x, width = LEFT + UNIT * span.begin, UNIT * (span.end - span.begin)
    drawn = f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{height}" fill="{color}" stroke="#fbfbf9"/>'
    if not span.label or width < 7 * len(span.label):
        return drawn
    size, baseline = (height - 2, y + height - 2) if height < 13 else (12, y + 13)
    return f'{drawn}<text x="{x + 4:g}" y="{baseline}" font-size="{size}" fill="#fff">{span.label}</text>'


def legend(y: int) -> Iterator[str]:
    """Draw what colors mean."""
    words = [f"sampled with version {version}" for version in range(len(VERSIONS))]
    for number, (color, text) in enumerate(zip(VERSIONS, words, strict=True)):
        x = 20 + 190 * number
        yield f'<rect x="{x}" y="{y + 6}" width="14" height="14" fill="{color}"/>'
        yield f'<text x="{x + 22}" y="{y + 18}">{text}</text>'
    yield f'<text x="{20 + 190 * len(VERSIONS)}" y="{y + 18}">dashed: generation has new weights</text>'


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
