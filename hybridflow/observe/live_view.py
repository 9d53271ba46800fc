"""The live view: a bar on a terminal, a line now and then elsewhere, and a short table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from hybridflow.observe import logs, terminal
from hybridflow.observe.terminal import cell, one_line

SHOWN = {
    "reward/mean": "reward {:.3f}",
    "cost/mean": "cost {:.3f}",
    "actor/kl": "KL {:.4f}",
    "actor/nll": "nll {:.3f}",
    "actor/dpo_loss": "loss {:.3f}",
    "actor/dpo_accuracy": "accuracy {:.3f}",
    "reward_model/loss": "loss {:.3f}",
    "reward_model/accuracy": "accuracy {:.3f}",
    "reward_model/sign_accuracy": "signs {:.3f}",
    "response_length/mean": "length {:.1f}",
    "actor/rollout_log_prob_diff_mean": "log-prob diff {:.1e}",
    "perf/tokens_per_s": "{:.0f} tokens/s",
}
SHOWN_UNLESS_ZERO = {"reward/failed_share": "failed grades {:.1%}", "cost/failed_share": "failed costs {:.1%}"}
LINE_EVERY_S = 10.0  # between lines where there is no terminal


class Live:
    """Live view of a run's progress on standard output."""

    def __init__(self, *, every_step: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._every_step = every_step
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Print a line above the bar. The log file has it too."""
        logs.said.info(one_line(text))
        if self._progress is not None and self._bar_moves():
            self.console.print(cell(text))
        else:
            terminal.say(one_line(text))

    @contextmanager
    def bar(self, name: str, steps: int, *, done: int = 0) -> Iterator[None]:
        """Show a progress bar that `step` moves; `done` steps were taken before."""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._bar_moves(),
        )
        with self._progress:
            self._task = self._progress.add_task(one_line(name), total=steps, completed=done, shown="")
            yield

    def step(self, done: int, steps: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Show that one more step is done. Its number, from 0, is that of the files and of errors."""
        known = [form.format(metrics[name]) for name, form in SHOWN.items() if name in metrics]
        known += [form.format(metrics[name]) for name, form in SHOWN_UNLESS_ZERO.items() if metrics.get(name)]
        shown = " · ".join(known)
        if self._progress is not None and self._task is not None and self._bar_moves():
            self._progress.update(self._task, completed=done, shown=shown)
            if not self._every_step:
                return
        if self._every_step or done in (1, steps) or monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = monotonic()
            self.say(f"step {done - 1} ({done}/{steps} done) · {shown} · {seconds_left:.0f} s left")

    def table(self, title: str, rows: Mapping[str, str]) -> None:
        """Print a short table."""
        table = Table(title=cell(title, "table.title"), show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(cell(name), cell(value))
        terminal.draw(self.console, table)

    @staticmethod
    def _bar_moves() -> bool:
        return sys.stdout.isatty()
