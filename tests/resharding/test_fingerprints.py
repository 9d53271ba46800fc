"""Fingerprints: of any bit and place, the sum of pieces; and what a refit says of a weight that is not as given."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.models import Weight
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.fingerprints import MODULUS, Region, differing
from tests.conftest import GetModel, GetRanks

NAME = "model.layers.0.mlp.up_proj.weight"
FORMATS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


@st.composite
def weights(draw: st.DrawFn) -> tuple[Region, Tensor]:
    """A weight split along an axis, whole, with any bits."""
    shape = draw(st.sampled_from([(8,), (1, 4), (6, 4), (5, 3), (16, 8)]))
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    dtype = draw(st.sampled_from(list(FORMATS)))
    size = 8 * dtype.itemsize
    bits = torch.randint(-(2 ** (size - 1)), 2 ** (size - 1), shape, generator=_seeded(draw), dtype=torch.int64)
    numbers = bits.to(FORMATS[dtype]).view(dtype)
    return Region(Weight(NAME, shape, 0, axis), (0, shape[axis or 0])), numbers


def _seeded(draw: st.DrawFn) -> torch.Generator:
    return torch.Generator().manual_seed(draw(st.integers(0, 2**32)))


def changed(numbers: Tensor, place: int, bit: int) -> Tensor:
    """The same but for one bit."""
    bits = numbers.clone().view(FORMATS[numbers.dtype])
    flat = bits.flatten()
    flat[place] ^= torch.tensor(1 << bit, dtype=torch.int64).to(flat.dtype)
    return flat.view(bits.shape).view(numbers.dtype)


@given(weights(), st.data())
def test_any_changed_bit_changes_it(weight: tuple[Region, Tensor], data: st.DataObject) -> None:
    region, numbers = weight
    place = data.draw(st.integers(0, numbers.numel() - 1))
    other = changed(numbers, place, data.draw(st.integers(0, 8 * numbers.itemsize - 1)))
    assert region.fingerprint(other, 0) != region.fingerprint(numbers, 0)


@given(weights(), st.data())
def test_it_is_the_sum_of_its_pieces_however_they_are_cut(weight: tuple[Region, Tensor], data: st.DataObject) -> None:
    """By whichever ranks, in whichever order: as views, and as copies."""
    region, numbers = weight
    axis, length = region.weight.axis or 0, region.span[1]
    cuts = data.draw(st.lists(st.integers(0, length)))
    region = Region(region.weight, region.span, tuple(cuts))
    pieces = [(a, numbers.narrow(axis, a, b - a)) for a, b in pairwise(sorted([0, length, *cuts]))]
    whole = region.fingerprint(numbers, 0)
    assert (sum(region.fingerprint(piece, a) for a, piece in pieces) - whole) % MODULUS == 0
    assert (sum(region.fingerprint(piece.clone(), a) for a, piece in reversed(pieces)) - whole) % MODULUS == 0


@given(weights(), st.data())
def test_two_parts_that_change_places_change_it(weight: tuple[Region, Tensor], data: st.DataObject) -> None:
    """Numbers, as near to each other as in one word, and rows; also if they differ in their sign alone."""
    region, numbers = weight
    if data.draw(st.booleans()):
        numbers = changed(numbers[:1].expand_as(numbers), 0, 8 * numbers.itemsize - 1)
    flat = numbers.flatten() if data.draw(st.booleans()) else numbers
    a, b = (data.draw(st.integers(0, len(flat) - 1)) for _ in range(2))
    order = torch.arange(len(flat))
    order[[a, b]] = order[[b, a]]
    bits = FORMATS[numbers.dtype]
    other = flat[order].reshape(numbers.shape)
    assume(not torch.equal(other.contiguous().view(bits), numbers.contiguous().view(bits)))
    assert region.fingerprint(other, 0) != region.fingerprint(numbers, 0)


@given(weights(), st.data())
@settings(max_examples=50)
def test_what_is_left_out_changes_it(weight: tuple[Region, Tensor], data: st.DataObject) -> None:
    region, numbers = weight
    left = data.draw(st.integers(0, len(numbers) - 1))
    other = torch.cat([numbers[:left], torch.zeros_like(numbers[left:])])
    assume(not torch.equal(other.view(FORMATS[other.dtype]), numbers.view(FORMATS[other.dtype])))
    assert region.fingerprint(other, 0) != region.fingerprint(numbers, 0)


def test_what_differs_is_named_with_its_region_and_the_reason() -> None:
    regions = [Region(Weight(name, (6, 2), 0, 0), (2, 4)) for name in ("a", "b", "c", "d", "e")]
    sources = dict(a=5, b=-7, c=3, d=1, e=2)
    before = dict.fromkeys(sources, 4)
    assert differing(regions, sources, dict(a=5, b=-7 + MODULUS, c=4, d=9), before, 3) == [
        "c [2, 4) (still of version 3)",
        "d [2, 4)",
        "e [2, 4) (nothing was read of it)",
    ]
    [said] = differing(regions, sources, {**sources, "c": None}, {}, None)
    assert said == "c [2, 4) (it is not whole, or a copy that is computed with differs from it)"
    assert differing([Region(Weight("none", (6, 2), 0, 0), (6, 6))], {}, {}, {}, None) == [], (
        "there is nothing to be read"
    )


@pytest.mark.ranks
@pytest.mark.parametrize(("fault", "why"), [("spoils", ""), ("loses", " (nothing was read of it)")])
def test_all_ranks_are_told_which_rank_has_which_weight_wrong(
    fault: str, why: str, ranks: GetRanks, tiny: GetModel
) -> None:
    """And no rank generates with it."""
    from tests.resharding import rank_functions  # the engines, which the tests above do without

    folder, layout = tiny(vocab=70, tied=True), Layout(2, generation=(1, 1))
    name = "model.layers.2.self_attn.k_proj.weight"
    said = ranks(2).run(rank_functions.spoiled, folder, layout, 1, **{fault: name})
    for text, version in said:
        assert text.startswith("refit to version 4, twice: generation does not compute with what training gave")
        assert f": rank 1, of ranks 0, 1: {name} [0, 64){why}. Nothing was sampled" in text and version is None


@pytest.mark.ranks
def test_ranks_that_have_planned_otherwise_are_named(ranks: GetRanks, tiny: GetModel) -> None:
    from tests.resharding import rank_functions

    folder, layout = tiny(vocab=70, tied=True), Layout(2, 2, generation=(1, 1))
    said = set(ranks(4).run(rank_functions.unlike, folder, layout, 2))
    assert len(said) == 1
    assert "on 3 ranks and another on rank 2 (" in said.pop()
    assert ranks(4).run(rank_functions.unlike, folder, layout, 7) == ["they agree"] * 4
