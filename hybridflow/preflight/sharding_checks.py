"""Can the engines cut a model so, and can weights get from one cut to the other? What plans refuse, by key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from hybridflow.config.schema import Config, Resharding, TrainedRoleConfig


class Sizes(Protocol):
    """Sizes of a model that the checks ask for; `hybridflow.models.ModelShape` has them."""

    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def vocab(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def head(self) -> str: ...
    def padded_vocab(self, tensor: int) -> int: ...


def training(role: str, settings: TrainedRoleConfig, model: Sizes) -> Iterator[str]:
    """Yield what Megatron cannot split."""
    cut, path = settings.parallel, settings.model.path
    wholes = (model.heads, "heads"), (model.kv_heads, "key/value heads"), (model.ffn, "feed-forward rows")
    yield from _uneven(f"{role}.parallel.tensor", cut.tensor, wholes, path)
    yield from _uneven(f"{role}.parallel.pipeline", cut.pipeline, [(model.layers, "layers")], path)


def generation(config: Config, model: Sizes, *, disaggregated: bool) -> Iterator[str]:
    """Yield what vLLM cannot split, and what does not get there from the actor's ranks.

    Args:
        apart: generation has a pool of its own; else its sizes are known to divide the actor's, or another check says
            that they do not.
    """
    cut, whole = config.rollout.parallel, config.actor.parallel.tensor
    if min(cut.tensor, cut.pipeline, whole) < 1:
        return
    if disaggregated:
        yield from _apart(config, model)
    elif whole % cut.tensor == 0:
        yield from _colocated(config, model)


def _apart(config: Config, model: Sizes) -> Iterator[str]:
    cut, path, key = config.rollout.parallel, config.actor.model.path, "rollout.parallel.tensor"
    wholes = (model.heads, "heads"), (model.ffn, "feed-forward rows"), _vocabulary(model)
    if uneven := [*_uneven(key, cut.tensor, wholes, path)]:
        yield from uneven
    elif model.kv_heads % cut.tensor and cut.tensor % model.kv_heads:
        yield (
            f"{key}: {cut.tensor} neither divides the {model.kv_heads} key/value heads of {path} nor is a multiple "
            "of them"
        )
    yield from _uneven("rollout.parallel.pipeline", cut.pipeline, [(model.layers, "layers")], path)


def _colocated(config: Config, model: Sizes) -> Iterator[str]:
    """Check the vocabulary, which both engines pad; all else that divides over the actor's ranks divides over fewer."""
    whole, part, path = config.actor.parallel.tensor, config.rollout.parallel.tensor, config.actor.model.path
    here, there = model.padded_vocab(whole), model.padded_vocab(1)
    ends = {min(padded // part, model.vocab) for padded in (here, there)}  # of the first part's rows
    if uneven := [*_uneven("rollout.parallel.tensor", part, [_vocabulary(model)], path)]:
        yield from uneven
    elif config.rollout.resharding is Resharding.hybrid and len(ends) > 1:
        yield (
            f"rollout.parallel.tensor: {part} cuts the vocabulary of {model.vocab} in {path} at other rows than "
            f"actor.parallel.tensor = {whole}, for which it is padded to {here}, and for vLLM to {there}; set it to 1, "
            "or actor.parallel.tensor to a size that divides 64"
        )


def _vocabulary(model: Sizes) -> tuple[int, str]:
    return model.padded_vocab(1), f"rows to which vLLM pads the vocabulary of {model.vocab}"


def _uneven(key: str, size: int, wholes: Iterable[tuple[int, str]], path: str) -> Iterator[str]:
    """Yield the first of these numbers of a model that a size does not divide."""
    for whole, what in wholes:
        if size > 0 and whole % size:
            yield f"{key}: {size} does not divide the {whole} {what} of {path}"
            return
