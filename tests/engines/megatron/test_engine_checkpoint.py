"""An engine that is saved and loaded goes on as one that was not, on the same layout and on others."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridflow.parallel.layout import Layout
from tests.conftest import GetModel, GetRanks
from tests.engines import rank_functions, reference
from tests.engines.megatron import checkpoint_rank_functions
from tests.engines.megatron import rank_functions as megatron_play
from tests.spmd import Ranks

pytestmark = pytest.mark.ranks

# The vocabulary of 70 is padded to 128: of two parts the second has 6 rows that are real.
MODEL = {"architecture": "qwen2", "vocab": 70}
DP2 = Layout(data=2)
SHARDED: dict[str, Any] = {"sharded": True}
BF16: dict[str, Any] = {"dtype": torch.bfloat16}


@cache
def batch():  # type: ignore[no-untyped-def]
    return reference.rows(70)


@pytest.mark.parametrize(
    ("before", "after", "tied", "saving", "loading"),
    [
        pytest.param(Layout(2), DP2, False, {}, {}, id="tp2-dp2"),
        pytest.param(Layout(2), Layout(), True, {}, {}, id="tp2-one"),
        pytest.param(Layout(1, 2), Layout(2), True, {}, {}, id="pp2-tp2-tied"),
        pytest.param(DP2, Layout(1, 2), True, {}, {}, id="dp2-pp2-tied"),
        pytest.param(DP2, Layout(2), False, SHARDED, {}, id="distributed-tp2"),
        pytest.param(Layout(1, 2), DP2, True, {}, SHARDED, id="pp2-distributed"),
    ],
)
def test_another_layout_goes_on_alike(
    before: Layout,
    after: Layout,
    tied: bool,
    saving: dict[str, Any],
    loading: dict[str, Any],
    ranks: GetRanks,
    tiny: GetModel,
    tmp_path: Path,
) -> None:
    """Three steps, saved, one more; loaded over another model's weights, one more: the same within 1e-5."""
    first, other = tiny(**MODEL, tied=tied), tiny(**MODEL, tied=tied, seed=1)
    a, b = tmp_path / "a", tmp_path / "b"
    uninterrupted = ranks(before.size).run(
        checkpoint_rank_functions.learn_and_save, first, before, batch(), a, 3, **saving
    )
    resumed = ranks(after.size).run(checkpoint_rank_functions.load_and_learn, other, after, batch(), a, b, **loading)
    assert all(extra == {"weight_version": 3} and lr == reference.SETTINGS.lr for _, extra, lr in resumed)
    expected = rank_functions.merged([weights for weights, _ in uninterrupted])
    found = rank_functions.merged([weights for weights, _, _ in resumed])
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)
    assert_same_tensors(a, b, ranks)


def assert_same_tensors(a: Path, b: Path, ranks: GetRanks) -> None:
    """What the second engine saved is what it had loaded: weights, moments, counts."""
    (first,), (second,) = (ranks(1).run(checkpoint_rank_functions.tensors, folder) for folder in (a, b))
    assert set(first) == set(second)
    kinds = {name.partition("/")[0] for name in first}
    assert kinds == {"weights", "exp_avg", "exp_avg_sq"}
    assert len(first) % 3 == 0
    for name, values in first.items():
        assert values.any(), f"{name} is empty"
        np.testing.assert_array_equal(second[name].view(np.int32), values.view(np.int32), err_msg=name)
    states = [json.loads((folder / "state.json").read_text()) for folder in (a, b)]
    assert all((s["optimizer_steps"], s["schedule_steps"]) == (3, 3) for s in states)


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        pytest.param(Layout(2), {}, id="tp2"),
        pytest.param(DP2, SHARDED, id="distributed"),
        pytest.param(Layout(1, 2), BF16, id="pp2-bf16"),
        pytest.param(DP2, {**BF16, **SHARDED}, id="distributed-bf16"),
    ],
)
def test_the_same_layout_goes_on_bit_for_bit(
    layout: Layout, options: dict[str, Any], ranks2: Ranks, tiny: GetModel, tmp_path: Path
) -> None:
    first, other = tiny(**MODEL, tied=True), tiny(**MODEL, tied=True, seed=1)
    a, b = tmp_path / "a", tmp_path / "b"
    uninterrupted = ranks2.run(checkpoint_rank_functions.learn_and_save, first, layout, batch(), a, 2, **options)
    resumed = ranks2.run(checkpoint_rank_functions.load_and_learn, other, layout, batch(), a, b, **options)
    for (expected, _), (found, _, _) in zip(uninterrupted, resumed, strict=True):
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert rank_functions.same(found[name], values), name


def test_an_optimizer_that_has_not_stepped(ranks2: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    """As the actor's in the critic's head start: there are no moments yet."""
    first, other = tiny(**MODEL), tiny(**MODEL, seed=1)
    a, b = tmp_path / "a", tmp_path / "b"
    uninterrupted = ranks2.run(checkpoint_rank_functions.learn_and_save, first, Layout(2), batch(), a, 0)
    resumed = ranks2.run(checkpoint_rank_functions.load_and_learn, other, Layout(2), batch(), a, b)
    for (expected, _), (found, _, _) in zip(uninterrupted, resumed, strict=True):
        assert all(rank_functions.same(found[name], values) for name, values in expected.items())


def test_every_random_state_goes_on(ranks2: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    results = ranks2.run(checkpoint_rank_functions.random_states, tiny(**MODEL), Layout(2), tmp_path / "a")
    for expected, found in results:
        assert found == expected
    assert results[0][0] != results[1][0], "the ranks' states were not told apart"


def test_what_a_loss_draws_is_its_engines_whatever_else_is_in_the_process(
    ranks1: Ranks, tiny: GetModel, tmp_path: Path
) -> None:
    ((alone, beside, resumed),) = ranks1.run(
        checkpoint_rank_functions.draws_of_losses, tiny(**MODEL), Layout(), batch(), tmp_path / "a"
    )
    assert alone == beside == resumed and alone[0] != alone[1]


def test_both_ranks_write_and_in_their_own_process(ranks2: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    found = ranks2.run(checkpoint_rank_functions.learn_and_save, tiny(**MODEL), DP2, batch(), tmp_path / "a", 1)
    sizes = [file.stat().st_size for file in sorted((tmp_path / "a" / "tensors").glob("*.distcp"))]
    assert len(sizes) == 2 and max(sizes) < 1.5 * min(sizes), sizes
    assert all(seconds < 5 for _, seconds in found)


def test_the_writer_of_our_own_is_still_needed(ranks1: Ranks, tmp_path: Path) -> None:
    """When the first is false, Megatron writes in one process: take `OneProcess` out."""
    assert ranks1.run(checkpoint_rank_functions.writes_without_a_manager, tmp_path) == [(True, False)]


def test_a_seed_decides_every_random_state(ranks1: Ranks, tmp_path: Path) -> None:
    """So that a run leaves the same states whichever roles share its processes."""
    (first,), (again,), (other,) = (ranks1.run(megatron_play.seeded, tmp_path, value) for value in (5, 5, 6))
    assert first == again
    assert all(first[name] != other[name] for name in ("torch", "numpy", "python"))


def test_a_disk_without_room(ranks1: Ranks, tiny: GetModel, tmp_path: Path) -> None:
    """Torch's own error is 98 lines that do not say it."""
    out = tmp_path / "actor"
    assert ranks1.run(checkpoint_rank_functions.save_where_there_is_no_room, tiny(**MODEL), Layout(), out) == [
        f"File too large: {out}/tensors"
    ]


@pytest.mark.parametrize(
    ("rank", "what"), [(0, "save what is common"), (1, "tensors"), (0, "save the format"), (1, "save the rest")]
)
def test_a_disk_without_room_for_one_rank_ends_the_save_on_all(
    rank: int, what: str, ranks2: Ranks, tiny: GetModel, tmp_path: Path
) -> None:
    """Else the others would wait for it. None is harmed: the next save is as good as any."""
    save = checkpoint_rank_functions.save_without_room_on_one_rank
    found = ranks2.run(save, tiny(**MODEL), DP2, tmp_path, rank, what)
    assert found[0] == found[1]
    assert found[0][0].startswith(f"File too large: {tmp_path}/refused") and found[0][1]
