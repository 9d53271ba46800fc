"""Offload tensors: their memory is given back, and every view of it is whole again afterwards."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hybridflow.parallel.offloaded import MIN_PIECE, Offload, piece_sizes, without


def test_all_that_look_into_a_storage_see_it_again() -> None:
    whole = torch.arange(12.0)
    view, param = whole[2:5].view(3, 1), nn.Parameter(whole[6:].view(2, 3))
    parked = Offload([view, param.data, whole])
    assert parked.nbytes == 48 and whole.untyped_storage().nbytes() == 0
    parked.restore()
    assert whole.tolist() == list(range(12)) and view.tolist() == [[2], [3], [4]]
    assert param.tolist() == [[6, 7, 8], [9, 10, 11]]
    view.fill_(1.0)
    assert whole[2:5].tolist() == [1, 1, 1], "they are still one storage"


def test_what_is_not_kept_has_memory_again() -> None:
    tensor = torch.ones(5)
    parked = Offload([tensor], keep=False)
    assert tensor.untyped_storage().nbytes() == 0
    parked.restore()
    tensor.zero_()
    assert tensor.tolist() == [0] * 5


def test_empty_tensors_are_left_alone_and_a_second_parking_finds_nothing() -> None:
    tensor = torch.ones(5)
    first, second = Offload([tensor, torch.empty(0)]), Offload([tensor])
    assert (first.nbytes, second.nbytes) == (20, 0)
    second.restore()
    first.restore()
    assert tensor.tolist() == [1] * 5


def test_without_knows_views() -> None:
    weights, moments = torch.ones(4), torch.zeros(4)
    assert [tensor is moments for tensor in without([weights[1:3], moments], [weights])] == [True]


@given(st.integers(0, 2**40))
def test_pinned_memory_is_asked_for_in_powers_of_two(size: int) -> None:
    """torch rounds each block up to one, so less than `MIN_PIECE` is wasted."""
    pieces = list(piece_sizes(size))
    assert sum(pieces) == size and len(pieces) <= 42
    assert sum(1 << (piece - 1).bit_length() for piece in pieces) - size < MIN_PIECE


def test_a_storage_of_several_pieces_comes_back() -> None:
    tensor = torch.arange(3 * MIN_PIECE // 8 + 5, dtype=torch.int64)
    expected = tensor.clone()
    parked = Offload([tensor])
    assert len(list(piece_sizes(parked.nbytes))) == 3
    parked.restore()
    assert torch.equal(tensor, expected)
