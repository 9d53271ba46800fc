"""The numbers of a run that people look at: their names on the screen, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

from hybridflow.observe.metrics import TIMES

WIDE = 1e7  # a number from there on is written with an exponent


@dataclass(frozen=True)
class ShownMetric:
    """Metric that is shown where a run has it.

    Attributes:
        label: in front of the number.
        form: of the number.
        unit: behind it, in a line, in place of the label.
        in_line: whether the line of a step has it, or only the live view.
        unless_zero: it is left out where it is 0.
    """

    name: str
    label: str
    form: str = "{:.3f}"
    unit: str = ""
    in_line: bool = True
    unless_zero: bool = False

    def written(self, value: float) -> str:
        """Write a value, in few characters whatever it is."""
        return self.form.format(value) if abs(value) < WIDE else f"{value:.2e}"

    def in_words(self, value: float) -> str:
        """Write a value with what it is, for a line."""
        return f"{self.written(value)} {self.unit}" if self.unit else f"{self.label} {self.written(value)}"


SHOWN = (
    ShownMetric("validation/accuracy", "accuracy", in_line=False),
    ShownMetric("reward/mean", "reward"),
    ShownMetric("cost/mean", "cost"),
    ShownMetric("actor/kl", "KL", "{:.4f}"),
    ShownMetric("actor/entropy", "entropy", in_line=False),
    ShownMetric("actor/nll", "nll"),
    ShownMetric("actor/dpo_loss", "loss"),
    ShownMetric("actor/dpo_accuracy", "accuracy"),
    ShownMetric("reward_model/loss", "loss"),
    ShownMetric("reward_model/accuracy", "accuracy"),
    ShownMetric("reward_model/sign_accuracy", "signs"),
    ShownMetric("response_length/mean", "length", "{:.1f}"),
    ShownMetric("rollout/truncated_fraction", "truncated", "{:.1%}", in_line=False, unless_zero=True),
    ShownMetric("actor/rollout_log_prob_diff_mean", "log-prob diff", "{:.1e}"),
    ShownMetric("actor/grad_norm", "grad norm", "{:.3g}", in_line=False),
    ShownMetric("rollout/version_lag_mean", "version lag", "{:.2f}", in_line=False, unless_zero=True),
    ShownMetric("perf/tokens_per_s", "tokens/s", "{:.0f}", unit="tokens/s"),
    ShownMetric("perf/goodput", "goodput", "{:.1%}", in_line=False),
    ShownMetric("reward/failed_share", "failed grades", "{:.1%}", unless_zero=True),
    ShownMetric("cost/failed_share", "failed costs", "{:.1%}", unless_zero=True),
)
NAMES = frozenset({"step", f"{TIMES}step", *(one.name for one in SHOWN)})
