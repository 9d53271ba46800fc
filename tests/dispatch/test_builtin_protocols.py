"""The paper's protocols over all kinds of layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, BatchRef, Metadata, Ragged
from hybridflow.dispatch import Call, Protocol, groups, protocols
from hybridflow.observe.metrics import Metrics
from hybridflow.parallel.layout import Layout

SPLITTING = ["3d_proto", "dp_tokens", "3d_all_micro_dp", "dp_proto"]
BY_COUNT = ["3d_proto", "3d_all_micro_dp", "dp_proto"]
TO_ALL = ["one_to_all", "3d_pp_only"]
ORDERS = ["tp-cp-ep-dp-pp", "cp-ep-dp-tp-pp", "pp-dp-tp-cp-ep"]


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def layouts(draw: st.DrawFn, ranks: int = 64) -> Layout:
    """Layouts of up to that many ranks, with and without each axis and a generation view, in several rank orders."""
    tensor = draw(st.integers(1, min(8, ranks)))
    pipeline = draw(st.integers(1, ranks // tensor))
    context = draw(st.integers(1, min(4, ranks // (tensor * pipeline))))
    data = draw(st.integers(1, ranks // (tensor * pipeline * context)))
    view = st.tuples(st.sampled_from(divisors(tensor)), st.sampled_from(divisors(pipeline)))
    return Layout(tensor, pipeline, data, draw(st.none() | view), draw(st.sampled_from(ORDERS)), context)


def build_rows(rows: int) -> BatchRef:
    """Rows that tell their number, with responses of uneven lengths."""
    lengths = [n * 7 % 5 for n in range(rows)]
    return BatchRef.from_local(
        Batch(number=np.arange(rows), response_ids=Ragged.of([[n] * k for n, k in enumerate(lengths)], np.int64))
    )


def row_numbers(ref: BatchRef) -> list[int]:
    """Which of the rows of `numbered` these are."""
    return ref.get().dense("number").tolist()


def protocol(name: str) -> Protocol:
    return protocols.get(name)()


def holders(name: str, layout: Layout) -> list[list[int]]:
    """The sets of ranks that share rows, from the table in the paper."""
    if name in ("3d_proto", "dp_tokens"):
        return layout.groups("tp", "pp", "cp")
    if name == "3d_all_micro_dp":
        return layout.replica_ranks
    return [[rank] for rank in range(layout.size)]


@pytest.mark.parametrize("name", SPLITTING)
@given(layout=layouts(), rows=st.integers(0, 70))
def test_round_trip(name: str, layout: Layout, rows: int) -> None:
    calls = protocol(name).distribute(layout, Call((build_rows(rows),)))
    assert len(calls) == layout.size
    collected = protocol(name).collect(layout, [call.args[0] for call in calls])
    assert collected.origin is None
    assert collected.get() == build_rows(rows).get()


@pytest.mark.parametrize("name", SPLITTING)
@given(layout=layouts(), rows=st.integers(0, 70))
def test_every_row_reaches_exactly_its_ranks(name: str, layout: Layout, rows: int) -> None:
    given_to = [row_numbers(call.args[0]) for call in protocol(name).distribute(layout, Call((build_rows(rows),)))]
    sets = [sorted(ranks) for ranks in holders(name, layout)]
    for row in range(rows):
        assert [rank for rank, found in enumerate(given_to) if row in found] in sets
    shares = [len(given_to[ranks[0]]) for ranks in sets]
    assert sum(shares) == rows
    assert name == "dp_tokens" or max(shares) - min(shares) <= 1


@pytest.mark.parametrize("name", TO_ALL)
@given(layout=layouts(), rows=st.integers(0, 9))
def test_every_row_reaches_all_ranks(name: str, layout: Layout, rows: int) -> None:
    calls = protocol(name).distribute(layout, Call((build_rows(rows),)))
    assert [row_numbers(call.args[0]) for call in calls] == [list(range(rows))] * layout.size


@given(layout=layouts(), rows=st.integers(0, 9))
def test_rank_zero_alone_gets_everything(layout: Layout, rows: int) -> None:
    first, *others = protocol("rank_zero").distribute(layout, Call((build_rows(rows),)))
    assert row_numbers(first.args[0]) == list(range(rows)) and others == [None] * (layout.size - 1)
    back = protocol("rank_zero").collect(layout, [first.args[0], *others])
    assert row_numbers(back) == list(range(rows))


@given(layout=layouts())
def test_all_to_all_gives_every_rank_its_own(layout: Layout) -> None:
    ranks = list(range(layout.size))
    calls = protocol("all_to_all").distribute(layout, Call((ranks,), {"name": [f"rank {r}" for r in ranks]}))
    assert [(c.args[0], c.kwargs["name"]) for c in calls] == [(r, f"rank {r}") for r in ranks]
    assert protocol("all_to_all").collect(layout, ranks) == ranks


@pytest.mark.parametrize(("value", "found"), [([1, 2, 3], "3 values"), (7, "int")])
def test_all_to_all_wants_one_value_a_rank(value: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"a list of 2 values, one a rank; it was given {found}"):
        protocol("all_to_all").distribute(Layout(data=2), Call((value,)))


@given(layout=layouts(), lengths=st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_dp_tokens_evens_out_tokens(layout: Layout, lengths: list[int]) -> None:
    rows = BatchRef.from_local(Batch(response_ids=Ragged.of([[0] * n for n in lengths], np.int64)))
    calls = protocol("dp_tokens").distribute(layout, Call((rows,)))
    tokens = [int(calls[rank].args[0].tokens().sum()) for rank in layout.output_ranks]
    assert sum(tokens) == sum(lengths)
    assert max(tokens) <= sum(lengths) / layout.data + max(lengths)


def test_dp_tokens_is_better_than_runs_of_rows() -> None:
    lengths = [100, 90, 80, 70, 4, 3, 2, 1]
    rows = BatchRef.from_local(Batch(prompt_ids=Ragged.of([[0] * n for n in lengths], np.int64)))

    def shares(name: str) -> list[int]:
        return sorted(int(c.args[0].tokens().sum()) for c in protocol(name).distribute(Layout(data=2), Call((rows,))))

    assert shares("3d_proto") == [10, 340] and shares("dp_tokens") == [175, 175]


def test_dp_tokens_asks_one_replica_for_no_lengths() -> None:
    class Unmade:
        def metadata(self) -> Metadata:
            raise AssertionError("the call waited")

    rows = BatchRef.from_chunk(Unmade(), 3, ["response_ids"])
    assert [len(call.args[0]) for call in protocol("dp_tokens").distribute(Layout(tensor=2), Call((rows,)))] == [3, 3]
    with pytest.raises(AssertionError, match="waited"):
        protocol("dp_tokens").distribute(Layout(data=2), Call((rows,)))


def test_dp_tokens_wants_rows_with_tokens() -> None:
    rows = BatchRef.from_local(Batch(x=np.arange(3)))
    with pytest.raises(KeyError, match=r"have tokens if they have prompt_ids or response_ids; these have x"):
        protocol("dp_tokens").distribute(Layout(data=2), Call((rows,)))


@pytest.mark.parametrize(("parts", "expected"), [(2, [2, 3]), (3, [1, 2, 2]), (7, [0, 1, 1, 0, 1, 1, 1])])
@pytest.mark.parametrize("name", BY_COUNT)
def test_five_rows_over_any_number_of_ranks(name: str, parts: int, expected: list[int]) -> None:
    calls = protocol(name).distribute(Layout(data=parts), Call((build_rows(5),)))
    assert [len(call.args[0]) for call in calls] == expected
    assert protocol(name).collect(Layout(data=parts), [call.args[0] for call in calls]).rows == 5


@given(layout=layouts(ranks=12), sizes=st.lists(st.integers(1, 5), max_size=12))
def test_dp_proto_keeps_groups_whole(layout: Layout, sizes: list[int]) -> None:
    group_id = np.repeat(np.arange(len(sizes)), sizes)
    ref = BatchRef(len(group_id), build_rows(len(group_id)).sources, {"group_id": group_id})
    parts = [call.args[0] for call in protocol("dp_proto").distribute(layout, Call((ref,)))]
    groups = [set(part.driver_columns["group_id"].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(sizes)  # no group is on two ranks
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert row_numbers(protocol("dp_proto").collect(layout, parts)) == list(range(len(group_id)))


@given(layout=layouts(ranks=12), group_id=st.lists(st.integers(0, 6), max_size=20))
def test_dp_proto_keeps_groups_whole_whose_rows_lie_apart(layout: Layout, group_id: list[int]) -> None:
    ref = BatchRef(len(group_id), build_rows(len(group_id)).sources, {"group_id": np.array(group_id, dtype=np.int64)})
    parts = [call.args[0] for call in protocol("dp_proto").distribute(layout, Call((ref,)))]
    groups = [set(part.driver_columns["group_id"].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set(group_id))
    assert row_numbers(protocol("dp_proto").collect(layout, parts)) == list(range(len(group_id)))


@pytest.mark.parametrize("name", ["3d_proto", "dp_tokens", "3d_all_micro_dp"])
@given(layout=layouts(ranks=12), count=st.integers(0, 9), samples=st.integers(1, 6))
def test_samples_of_a_prompt_go_round_together(name: str, layout: Layout, count: int, samples: int) -> None:
    """Whichever rank has them, each row comes once, and back in its order; and no rank has many more than another."""
    rows = build_rows(count).repeat(samples)
    calls = protocol(name).distribute(layout, Call((rows,)))
    heads = [ranks[0] for ranks in sorted(map(sorted, holders(name, layout)))]
    parts = [calls[rank].args[0] for rank in heads]
    assert sum(map(len, parts)) == len(rows)
    assert protocol(name).collect(layout, [call.args[0] for call in calls]).get() == rows.get()
    if name != "dp_tokens":
        assert max(map(len, parts)) <= 1.1 * len(rows) / len(parts) + 1
    if count % len(parts) == 0 and name != "dp_tokens":
        assert all(len(set(part.driver_columns["group_id"].tolist())) * samples == len(part) for part in parts)


def test_a_cut_moves_to_a_group_that_begins_near_it() -> None:
    sizes = [19, 21, 20, 4, 36]
    group_id = np.repeat(np.arange(5), sizes)
    ref = BatchRef(100, build_rows(100).sources, {"group_id": group_id})

    def shares(parts: int) -> list[int]:
        calls = protocol("3d_all_micro_dp").distribute(Layout(data=parts), Call((ref,)))
        return [len(call.args[0]) for call in calls]

    assert shares(2) == [50, 50], "groups begin at 40 and 60, too far from it"
    assert shares(5) == [19, 21, 20, 20, 20], "and at 19, 40 and 60, but at 64, and not near 80"


def test_dp_tokens_counts_the_prompt_of_samples_once() -> None:
    """So that groups stay whole: of each prompt of 60 tokens none is computed twice."""
    lengths = np.array([9, 3, 8, 2, 7, 1, 6, 4])
    rows = BatchRef.from_local(Batch(prompt_ids=Ragged.of([[0] * 60] * 4, np.int64))).repeat(2)
    rows |= BatchRef.from_local(Batch(response_ids=Ragged.of([[0] * n for n in lengths], np.int64)))
    calls = protocol("dp_tokens").distribute(Layout(data=2), Call((rows,)))
    assert [set(call.args[0].driver_columns["group_id"].tolist()) for call in calls] == [{0, 2}, {1, 3}]


def test_dp_tokens_reads_groups_that_a_rank_has_made_from_its_report() -> None:
    class Made:
        def metadata(self) -> Metadata:
            return Metadata.of(Batch(group_id=np.array([5, 9, 5, 9]), prompt_ids=Ragged.of([[0] * 60] * 4, np.int64)))

        def get(self) -> Batch:
            raise AssertionError("rows were brought to the controller")

    rows = BatchRef.from_chunk(Made(), 4, ["group_id", "prompt_ids"])
    calls = protocol("dp_tokens").distribute(Layout(data=2), Call((rows,)))
    assert [np.asarray(call.args[0].origin).tolist() for call in calls] == [[0, 2], [1, 3]]


def test_groups_are_whole_in_dp_proto_only() -> None:
    ref = build_rows(2).repeat(3)
    sizes = {
        name: [len(c.args[0]) for c in protocol(name).distribute(Layout(data=3), Call((ref,)))] for name in BY_COUNT
    }
    assert sizes == {"3d_proto": [2, 2, 2], "3d_all_micro_dp": [2, 2, 2], "dp_proto": [0, 3, 3]}


@pytest.mark.parametrize("name", SPLITTING)
def test_all_rows_are_split_alike_and_the_rest_goes_to_all(name: str) -> None:
    call = Call((build_rows(5), "all"), {"more": build_rows(5), "step": 3})
    for part in protocol(name).distribute(Layout(data=2), call):
        assert part.args[1] == "all" and part.kwargs["step"] == 3
        assert row_numbers(part.args[0]) == row_numbers(part.kwargs["more"])


@pytest.mark.parametrize("name", SPLITTING)
def test_rows_by_keyword_only(name: str) -> None:
    calls = protocol(name).distribute(Layout(data=2), Call((), {"rollout": build_rows(5)}))
    assert sorted(n for call in calls for n in row_numbers(call.kwargs["rollout"])) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", SPLITTING)
def test_arguments_with_other_numbers_of_rows_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"different numbers of rows: \[2, 3\]"):
        protocol(name).distribute(Layout(data=2), Call((build_rows(2), build_rows(3))))


@pytest.mark.parametrize("name", [*SPLITTING, *TO_ALL])
def test_a_call_without_rows_reaches_every_rank(name: str) -> None:
    call = Call(("folder",))
    assert protocol(name).distribute(Layout(tensor=2, data=2), call) == [call] * 4


@given(layout=layouts())
def test_results_come_from_tensor_0_of_the_last_stage(layout: Layout) -> None:
    ranks = list(range(layout.size))
    trained = [layout.coordinates[rank] for rank in protocol("3d_proto").collect(layout, ranks)]
    last = layout.pipeline - 1
    assert [(at.tp, at.cp, at.pp, at.dp) for at in trained] == [(0, 0, last, d) for d in range(layout.data)]
    made = [layout.generation_coordinate(rank) for rank in protocol("3d_all_micro_dp").collect(layout, ranks)]
    last = layout.generation_sizes[1] - 1
    assert [(at.tp, at.pp, at.dp) for at in made] == [(0, last, d) for d in range(layout.replicas)]
    stages = [layout.coordinates[rank] for rank in protocol("3d_pp_only").collect(layout, ranks)]
    assert [(at.tp, at.cp, at.pp, at.dp) for at in stages] == [(0, 0, p, 0) for p in range(layout.pipeline)]
    assert protocol("dp_proto").collect(layout, ranks) == protocol("one_to_all").collect(layout, ranks) == ranks


def test_3d_pp_only_puts_lists_end_to_end() -> None:
    layout = Layout(tensor=2, pipeline=2)
    outputs = [[f"{at.pp}.{at.tp}"] for at in layout.coordinates]
    assert protocol("3d_pp_only").collect(layout, outputs) == ["0.0", "1.0"]


@pytest.mark.parametrize("name", SPLITTING)
def test_nothing_from_every_rank_is_nothing(name: str) -> None:
    assert protocol(name).collect(Layout(tensor=2, data=2), [None] * 4) is None


def build_metrics(total: float, weight: float) -> Metrics:
    metrics = Metrics()
    metrics.mean("reward", total, weight)
    metrics.total("tokens", weight)
    metrics.max("norm", total)
    return metrics


@pytest.mark.parametrize("name", ["3d_proto", "metrics"])
def test_metrics_count_a_row_once_however_many_ranks_saw_it(name: str) -> None:
    layout = Layout(tensor=2, data=2)
    outputs = [build_metrics(*pair) for pair in [(1.0, 2), (100.0, 2), (5.0, 4), (100.0, 2)]]
    found = protocol(name).collect(layout, outputs)
    assert dict(found) == {"reward": 1.0, "tokens": 6.0, "norm": 5.0}


def test_metrics_gives_metrics_only() -> None:
    with pytest.raises(TypeError, match="metrics wants every rank to return Metrics; one returned float"):
        protocol("metrics").collect(Layout(data=2), [0.5, 0.5])


def test_groups_are_known_for_any_call() -> None:
    rows = build_rows(4)
    assert groups(Call((rows.repeat(2).select([7, 0, 1]),))).tolist() == [3, 0, 0]
    assert groups(Call((rows,))).tolist() == [0, 1, 2, 3], "rows in no group are each one of their own"
    assert groups(Call((5,))).tolist() == []


def test_dp_proto_keeps_groups_whole_that_a_rank_numbered() -> None:
    """A clustering role's column is none of the marks that the controller makes."""
    rows = build_rows(4) | BatchRef.from_local(Batch(group_id=np.array(["b", "a", "a", "b"], dtype=object)))
    assert groups(Call((rows,))).tolist() == [1, 0, 0, 1]
    parts = [part.args[0] for part in protocol("dp_proto").distribute(Layout(data=3), Call((rows,)))]
    assert sorted(map(len, parts)) == [0, 0, 4]
