"""Losses: what an optimizer step of a trained role minimizes, and which columns that needs.

A loss is a class in the registry `losses`, which an algorithm's flow names:

    @losses.register("reverse_kl")
    class ReverseKL(Loss):
        needs = {"teacher_log_probs": "ragged float"}

        def token_loss(self, inputs: LossInputs) -> TokenLoss: ...

    self.actor.update_policy(rows, "reverse_kl")

The controller asks a loss for its columns alone, light ranks not even for those; so this module imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hybridflow.batch import Batch
from hybridflow.batch.weight_versions import WEIGHT_VERSION
from hybridflow.config.schema import Config
from hybridflow.dispatch import Reads
from hybridflow.dispatch.known_columns import GROUP, OLD_LOG_PROBS, SHARED_PREFIXES, kinds
from hybridflow.dispatch.method import Columns, declared_kinds
from hybridflow.errors import HybridFlowError
from hybridflow.observe.metrics import Metrics
from hybridflow.registry import Registry
from hybridflow.tasks.grades import GRADES

if TYPE_CHECKING:
    from torch import Tensor

    from hybridflow.losses.token_loss import TokenLoss


@dataclass(frozen=True)
class LossInputs:
    """Outputs of the model for T response tokens of R whole rows, end to end, and the columns that the loss declared.

    Tokens that `loss_mask` leaves out are not among them: rows are given as though they had no others.

    Attributes:
        lengths: [R] int64, tokens of each row.
        log_probs, entropy: [T] of a language model, with gradients.
        values: [T] of a critic, with gradients.
        scores: [R] of a reward model, with gradients.
        columns: by name, [T] if a column is ragged over responses, else [R]. Of a loss of pairs: [R / 2].

    What the role's model does not say is empty.
    """

    lengths: Tensor
    log_probs: Tensor
    entropy: Tensor
    values: Tensor
    scores: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Surroundings:
    """Facilities of the rank that a loss may use, before the rows are split into micro-batches.

    Attributes:
        metrics: of the update.
        global_sums: sums of numbers over the data parallel ranks; each must ask equally often.
    """

    metrics: Metrics
    global_sums: Callable[..., list[float]]


class Loss(ABC):
    """Objective that an optimizer step minimizes. One is made for each update, with the options that the call names.

    Attributes:
        needs: the columns that it reads, by name, with their kinds; prompts and responses it always has.
        optional: columns that it reads too where rows have them.
        of_pairs: a row is a pair, a chosen response and a rejected one; the loss sees both, one after the other, as
            2 P rows, and gives a loss a pair. Their mean is minimized.
        at_sampling_temperature: log-probs are taken at the temperature that each row was sampled at; else at 1, the
            model's own, as for text that comes from elsewhere.
        aggregate: how tokens are averaged, by its name among `hybridflow.losses.aggregations.aggregations`.
        terms: the names of `TokenLoss.terms` that it reports, known before there are rows: a rank may have none.
    """

    needs: ClassVar[Columns] = ()
    optional: ClassVar[Columns] = ()
    of_pairs: ClassVar[bool] = False
    at_sampling_temperature: ClassVar[bool] = True
    aggregate: str = "token_mean"
    terms: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared_kinds(cls.needs, cls.optional)  # what is wrong with them is told where they are written
        if isinstance(cls.terms, str):
            raise TypeError(f"{cls.__name__}.terms is the text {cls.terms!r}; several names are expected")

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def declared(cls) -> Reads:
        """Return the columns that `token_loss` is given."""
        return Reads(cls.needs, cls.optional)

    @classmethod
    def takes_own_log_probs(cls) -> bool:
        """Tell whether an update's own log-probs, without gradients, may stand for `old_log_probs` that rows lack.

        They are known a micro-batch at a time: too late for a loss that prepares columns of all rows. One that reads
        them only where rows have them is given none.
        """
        return OLD_LOG_PROBS in tuple(cls.declared().needs) and cls.prepare is Loss.prepare and not cls.of_pairs

    def declared_in(self, rows: Batch) -> list[str]:
        """Return the names of the declared columns that rows have."""
        needs, optional = self.declared()
        return [name for name in (*needs, *optional) if name in rows]

    @classmethod
    def reads(cls) -> Reads:
        """Return the columns that travel with an update: those declared, and those of every update."""
        own = cls.declared()
        tokens = kinds("prompt_ids", "response_ids")
        if cls.of_pairs:
            common = kinds("loss_mask", "rejected_loss_mask") | GROUP
            return Reads(_kinds(tokens | kinds("rejected_ids"), own.needs), _kinds(common, own.optional))
        temperature = kinds("sampling_temperature") if cls.at_sampling_temperature else {}
        # Grades say which rows can be learned from. They may be of any kind: nobody computes with them.
        common = kinds("loss_mask") | temperature | SHARED_PREFIXES | dict.fromkeys(GRADES, "")
        return Reads(_kinds(tokens, own.needs), _kinds(common, own.optional))

    def prepare(self, rows: Batch, here: Surroundings) -> Batch:
        """Return this rank's rows with columns that the loss makes from all of them, beside those that it declared."""
        return rows

    @abstractmethod
    def token_loss(self, inputs: LossInputs) -> TokenLoss:
        """Return the loss of each token, or of each pair, and what to report of it."""


losses: Registry[type[Loss]] = Registry("loss", "hybridflow.losses.builtin_losses", of=Loss)


def reads_of(name: str | None = None) -> Callable[..., Reads]:
    """Return what a role's method reads that minimizes the loss of that name, or the one that its call names."""

    def reads(rows: Any, loss: str = "", **options: Any) -> Reads:
        try:
            return losses.get(name or loss).reads()
        except KeyError as error:
            raise HybridFlowError(error.args[0]) from None

    return reads


def policy_reads(name: str | None = None) -> Callable[..., Reads]:
    """Return what `reads_of` does, of a policy: rows that it sampled may come without old log-probs.

    A loss that `takes_own_log_probs` is then given those of the update, which the versions of the rows are compared
    with.
    """
    of_loss = reads_of(name)

    def reads(rows: Any, loss: str = "", **options: Any) -> Reads:
        declared = of_loss(rows, loss, **options)
        known = getattr(rows, "columns", ())
        if OLD_LOG_PROBS in known or WEIGHT_VERSION not in known or not losses.get(name or loss).takes_own_log_probs():
            return declared
        needs = {column: kind for column, kind in _kinds({}, declared.needs).items() if column != OLD_LOG_PROBS}
        return Reads(needs | kinds(WEIGHT_VERSION), _kinds(kinds("rollout_log_probs"), declared.optional))

    return reads


def _kinds(common: Mapping[str, str], own: Columns) -> dict[str, str]:
    return {**common, **(own if isinstance(own, Mapping) else dict.fromkeys(own, ""))}
