"""Checksums: exact, of any order, of the sum of parts; and what a refit says of a weight that is not as given."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.parallel.layout import Layout
from hybridflow.resharding.checksums import MODULUS, checksum, differing
from tests.conftest import GetModel, GetRanks

values = st.lists(st.floats(width=32), min_size=2, max_size=40)


@given(values, st.sampled_from([torch.float32, torch.bfloat16]), st.data())
def test_a_checksum_is_the_sum_of_its_parts_in_any_order(
    numbers: list[float], dtype: torch.dtype, data: st.DataObject
) -> None:
    tensor = torch.tensor(numbers, dtype=dtype)
    at = data.draw(st.integers(0, len(tensor)))
    order = torch.tensor(data.draw(st.permutations(range(len(tensor)))))
    assert checksum(tensor[order]) == checksum(tensor) == checksum(tensor[:at]) + checksum(tensor[at:])
    assert checksum(torch.cat([tensor, torch.zeros(3, dtype=dtype)])) == checksum(tensor)


@given(values, st.data())
def test_a_changed_bit_changes_it(numbers: list[float], data: st.DataObject) -> None:
    tensor = torch.tensor(numbers)
    bits = tensor.view(torch.int32).clone()
    bits[data.draw(st.integers(0, len(bits) - 1))] ^= 1 << data.draw(st.integers(0, 30))
    assert checksum(bits.view(torch.float32)) != checksum(tensor)


def test_a_view_has_the_checksum_of_its_numbers() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    assert checksum(tensor[:, 1:3]) == checksum(tensor[:, 1:3].clone())


def test_what_differs_and_what_is_missing_is_named() -> None:
    sources = {"q": 5, "k": -7, "o": 3, "norm": 1}
    held = {("q", "k"): -2 + MODULUS, ("o",): 4}
    assert differing(sources, held) == ["norm", "o"]
    assert differing(sources, {("q", "k"): -3, ("o",): 3, ("norm",): 1}) == ["k", "q"]


@pytest.mark.ranks
@pytest.mark.parametrize("fault", ["spoils", "loses"])
def test_all_ranks_are_told_which_rank_has_which_weight_wrong(fault: str, ranks: GetRanks, tiny: GetModel) -> None:
    """And no rank generates with it."""
    from tests.resharding import rank_functions  # the engines, which the tests above do without

    folder, layout = tiny(vocab=70, tied=True), Layout(2, generation=(1, 1))
    name = "model.layers.2.self_attn.k_proj.weight"
    said = ranks(2).run(rank_functions.spoiled, folder, layout, 1, **{fault: name})
    text = (
        "refit to version 4: generation does not hold what training gave, by their checksums: "
        f"rank 1, of ranks 0, 1: {name}"
    )
    assert said == [(text, None)] * 2


@pytest.mark.ranks
def test_ranks_that_have_planned_otherwise_are_named(ranks: GetRanks, tiny: GetModel) -> None:
    from tests.resharding import rank_functions

    folder, layout = tiny(vocab=70, tied=True), Layout(2, 2, generation=(1, 1))
    said = set(ranks(4).run(rank_functions.unlike, folder, layout, 2))
    assert len(said) == 1
    assert "on 3 ranks and another on rank 2 (" in said.pop()
    assert ranks(4).run(rank_functions.unlike, folder, layout, 7) == ["they agree"] * 4
