"""Scaling of rotary frequencies for long contexts, and the fields of a config that say so."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import pi
from typing import TYPE_CHECKING, Any

from hybridflow.json_file import a_number

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_THETA = 10000.0  # what transformers takes where a folder gives no base


@dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's frequency scaling: frequencies that turn often within the original context stay, slow ones are
    divided.

    The names are the config's. The formula is that of `apply_scaling` in Meta's llama-models.

    Attributes:
        factor: divisor of slow frequencies.
        low_freq_factor, high_freq_factor: turns within the original context, up to which a frequency is slow, and from
            which it stays.
        original_max_position_embeddings: tokens of the original context.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: float

    def stretch(self, frequencies: Tensor) -> Tensor:
        """Scale frequencies in radians a token, of any shape, to those of the longer context.

        Between the two limits the change is linear in the number of turns.
        """
        turns = frequencies * self.original_max_position_embeddings / (2 * pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def read_rope(config: dict[str, Any], where: str) -> tuple[float, Llama3Rope | None]:
    """Read the base of the frequencies and their scaling.

    transformers 5 writes `rope_parameters`; older folders have `rope_theta` beside the sizes, and `rope_scaling`, which
    wins if both are there, as in transformers.

    Raises ValueError naming a kind or a setting that is not supported.
    """
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    settings = {name: value for name, value in (config.get(field) or {}).items() if value is not None}
    theta = a_number(
        settings.pop("rope_theta", None) or config.get("rope_theta") or DEFAULT_THETA, f"{where}: rope_theta"
    )
    old_name = settings.pop("type", "default")
    kind = settings.pop("rope_type", old_name)
    if settings.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{where}: {field} has a partial_rotary_factor, which is not supported, only 1.0")
    if kind not in ("default", "llama3"):
        raise ValueError(f"{where}: {field}: rope type = {kind!r} is not supported, only 'default' and 'llama3'")
    wanted = [item.name for item in fields(Llama3Rope)] if kind == "llama3" else []
    if sorted(settings) != sorted(wanted):
        raise ValueError(
            f"{where}: {field} of type {kind!r} with {_listed(settings)} is not supported, only with {_listed(wanted)}"
        )
    if not wanted:
        return theta, None
    rope = Llama3Rope(**{name: a_number(value, f"{where}: {field}: {name}") for name, value in settings.items()})
    if rope.low_freq_factor >= rope.high_freq_factor:
        raise ValueError(f"{where}: {field}: low_freq_factor must be less than high_freq_factor")
    return theta, rope


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "no other setting"
