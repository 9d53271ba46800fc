"""The paper's protocols over all kinds of layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.dispatch import Call, Protocol, protocols
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout

SPLITTING = ["3d_proto", "3d_all_micro_dp", "dp_proto"]
ORDERS = ["tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp", "pp-dp-tp-cp-ep"]


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def layouts(draw: st.DrawFn, ranks: int = 64) -> Layout:
    """Layouts of up to that many ranks, with and without a generation view, in several rank orders."""
    tensor = draw(st.integers(1, 8))
    pipeline = draw(st.integers(1, ranks // tensor))
    data = draw(st.integers(1, ranks // (tensor * pipeline)))
    view = st.tuples(st.sampled_from(divisors(tensor)), st.sampled_from(divisors(pipeline)))
    return Layout(tensor, pipeline, data, draw(st.none() | view), draw(st.sampled_from(ORDERS)))


def numbered(rows: int) -> Batch:
    return Batch(number=np.arange(rows), ids=Ragged.of([[n] * (n % 4) for n in range(rows)], dtype=np.int64))


def referred(rows: int) -> BatchRef:
    return BatchRef.of("chunk", rows, ("number",))


def numbers(rows: Any) -> list[int]:
    """Which of the rows of `numbered` or `referred` these are."""
    return rows.sources[0].where[:, 1].tolist() if isinstance(rows, BatchRef) else rows.dense("number").tolist()


def protocol(name: str) -> Protocol:
    return protocols.get(name)()


def holders(name: str, layout: Layout) -> list[list[int]]:
    """The sets of ranks that share rows, from the table in the paper."""
    if name == "3d_proto":
        return layout.groups("tp", "pp")
    if name == "3d_all_micro_dp":
        return layout.replica_ranks()
    return [[rank] for rank in range(layout.size)]


@pytest.mark.parametrize("make", [numbered, referred])
@pytest.mark.parametrize("name", SPLITTING)
@given(layout=layouts(), rows=st.integers(0, 70))
def test_round_trip(name: str, make: Any, layout: Layout, rows: int) -> None:
    calls = protocol(name).distribute(layout, Call((make(rows),)))
    assert len(calls) == layout.size
    collected = protocol(name).collect(layout, [call.args[0] for call in calls])
    assert numbers(collected) == list(range(rows))
    if make is numbered:
        assert [row.tolist() for row in collected.ragged("ids")] == [[n] * (n % 4) for n in range(rows)]


@pytest.mark.parametrize("name", SPLITTING)
@given(layout=layouts(), rows=st.integers(0, 70))
def test_every_row_reaches_exactly_its_ranks_and_evenly(name: str, layout: Layout, rows: int) -> None:
    calls = protocol(name).distribute(layout, Call((numbered(rows),)))
    sets = holders(name, layout)
    reached = {row: [r for r, call in enumerate(calls) if row in numbers(call.args[0])] for row in range(rows)}
    assert all(sorted(ranks) in [sorted(s) for s in sets] for ranks in reached.values())
    shares = [len(calls[ranks[0]].args[0]) for ranks in sets]
    assert sum(shares) == rows
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(("parts", "expected"), [(2, [2, 3]), (3, [1, 2, 2]), (7, [0, 1, 1, 0, 1, 1, 1])])
@pytest.mark.parametrize("name", SPLITTING)
def test_five_rows_over_any_number_of_ranks(name: str, parts: int, expected: list[int]) -> None:
    calls = protocol(name).distribute(Layout(data=parts), Call((numbered(5),)))
    assert [len(call.args[0]) for call in calls] == expected
    assert protocol(name).collect(Layout(data=parts), [call.args[0] for call in calls]).rows == 5


@given(layout=layouts(ranks=12), sizes=st.lists(st.integers(1, 5), max_size=12))
def test_dp_proto_keeps_groups_whole(layout: Layout, sizes: list[int]) -> None:
    group_id = np.repeat(np.arange(len(sizes)), sizes)
    ref = BatchRef(len(group_id), referred(len(group_id)).sources, {"group_id": group_id})
    parts = [call.args[0] for call in protocol("dp_proto").distribute(layout, Call((ref,)))]
    groups = [set(part.marks["group_id"].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(sizes)  # no group is on two ranks
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert numbers(protocol("dp_proto").collect(layout, parts)) == list(range(len(group_id)))


@given(layout=layouts(ranks=12), group_id=st.lists(st.integers(0, 6), max_size=20))
def test_dp_proto_keeps_groups_whole_whose_rows_lie_apart(layout: Layout, group_id: list[int]) -> None:
    ref = BatchRef(len(group_id), referred(len(group_id)).sources, {"group_id": np.array(group_id, dtype=np.int64)})
    parts = [call.args[0] for call in protocol("dp_proto").distribute(layout, Call((ref,)))]
    groups = [set(part.marks["group_id"].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set(group_id))
    assert numbers(protocol("dp_proto").collect(layout, parts)) == list(range(len(group_id)))


def test_groups_are_whole_in_dp_proto_only() -> None:
    ref = referred(2).repeat(3)
    sizes = {
        name: [len(c.args[0]) for c in protocol(name).distribute(Layout(data=3), Call((ref,)))] for name in SPLITTING
    }
    assert sizes == {"3d_proto": [2, 2, 2], "3d_all_micro_dp": [2, 2, 2], "dp_proto": [0, 3, 3]}


@pytest.mark.parametrize("name", SPLITTING)
def test_all_rows_are_split_alike_and_the_rest_goes_to_all(name: str) -> None:
    call = Call((numbered(5), "all"), {"more": referred(5), "step": 3})
    for part in protocol(name).distribute(Layout(data=2), call):
        assert part.args[1] == "all" and part.kwargs["step"] == 3
        assert numbers(part.args[0]) == numbers(part.kwargs["more"])


@pytest.mark.parametrize("name", SPLITTING)
def test_arguments_with_other_numbers_of_rows_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"different numbers of rows: \[2, 3\]"):
        protocol(name).distribute(Layout(data=2), Call((numbered(2), numbered(3))))


@pytest.mark.parametrize("name", [*SPLITTING, "one_to_all"])
def test_a_call_without_rows_reaches_every_rank(name: str) -> None:
    call = Call(("folder",))
    assert protocol(name).distribute(Layout(tensor=2, data=2), call) == [call] * 4


def test_one_to_all_gives_everything_to_all_and_a_list_back() -> None:
    layout = Layout(tensor=2)
    calls = protocol("one_to_all").distribute(layout, Call((numbered(3),)))
    assert [numbers(call.args[0]) for call in calls] == [[0, 1, 2]] * 2
    assert protocol("one_to_all").collect(layout, ["a", "b"]) == ["a", "b"]


@given(layout=layouts())
def test_results_come_from_tensor_0_of_the_last_stage(layout: Layout) -> None:
    ranks = list(range(layout.size))
    trained = [layout.coordinates[rank] for rank in protocol("3d_proto").collect(layout, ranks)]
    assert [(at.tp, at.pp, at.dp) for at in trained] == [(0, layout.pipeline - 1, d) for d in range(layout.data)]
    made = [layout.generation_coordinate(rank) for rank in protocol("3d_all_micro_dp").collect(layout, ranks)]
    last = layout.generation_sizes[1] - 1
    assert [(at.tp, at.pp, at.dp) for at in made] == [(0, last, d) for d in range(layout.replicas)]
    assert protocol("dp_proto").collect(layout, ranks) == ranks


@pytest.mark.parametrize("name", SPLITTING)
def test_nothing_from_every_rank_is_nothing(name: str) -> None:
    assert protocol(name).collect(Layout(tensor=2, data=2), [None] * 4) is None


def test_metrics_count_a_row_once_however_many_ranks_saw_it() -> None:
    layout, outputs = Layout(tensor=2, data=2), [Metrics() for _ in range(4)]
    for metrics, total in zip(outputs, [1.0, 100.0, 5.0, 100.0], strict=True):
        metrics.mean("reward", total, weight=2)
    assert protocol("3d_proto").collect(layout, outputs).result() == {"reward": 1.5}
