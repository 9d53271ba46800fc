"""What travels of a call: rows come out on a rank as the controller's reference says."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.batch.joining import concat
from hybridflow.dispatch import Call
from hybridflow.dispatch.message import pack, unpack
from hybridflow.runtime.messages import CallRequest


def build_chunk(rows: int, first: int) -> Batch:
    """Rows that can be told from those of any other chunk."""
    numbers = np.arange(first, first + rows)
    texts = Ragged.of([np.full(number % 3, number) for number in numbers], np.int64)
    return Batch(number=numbers, text=texts, unread=numbers)


def send(call: Call, reads: list[str] | None) -> Call:
    """The call as a rank gets it, which is given what the chunks' objects in the store would be."""
    message, chunks = pack(call, reads)
    order = CallRequest.decode(CallRequest("role", "method", message).encode())
    return unpack(order.message, [held.batch.to_wire() for held in chunks])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_rows_in_any_order_from_any_chunks(sizes: list[int], seed: int, taken: int) -> None:
    whole = concat([BatchRef.from_local(build_chunk(size, 100 * number)) for number, size in enumerate(sizes)])
    rows = np.random.default_rng(seed).integers(0, len(whole), taken if len(whole) else 0)
    wanted = whole.select(rows)
    found = send(Call((wanted, "a", None), {"more": wanted.slice(0, len(rows) // 2)}), ["number", "text"])
    assert found.args == (wanted.select_columns(["number", "text"]).get(), "a", None)
    assert found.kwargs == {"more": wanted.slice(0, len(rows) // 2).select_columns(["number", "text"]).get()}


def test_columns_of_several_sources_and_marks() -> None:
    rows = BatchRef.from_local(build_chunk(4, 0)).repeat(2) | BatchRef.from_local(Batch(rewards=np.arange(8.0)))
    everything: Any = send(Call((rows,)), None).args[0]
    assert everything == rows.get()
    assert set(send(Call((rows,)), ["rewards"]).args[0].columns) == {"rewards", *rows.driver_columns}
