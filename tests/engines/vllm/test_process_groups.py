"""vLLM's ranks on ours: the order in which it counts, by coordinates."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridflow.engines.vllm.process_groups import rank_map
from hybridflow.parallel.layout import Layout
from tests.parallel.generation_view import generation_groups


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2, generation=(1, 1)),
        Layout(4, 1, 2, generation=(2, 1)),
        Layout(2, 2, 2, generation=(1, 2)),
        Layout(4, 2, 1, generation=(2, 1), order="cp-ep-dp-tp-pp"),
    ],
)
def test_vllms_consecutive_numbers_are_our_generation_groups(layout: Layout) -> None:
    """vLLM takes consecutive numbers for a tensor group, and strides of its size inside a replica for a pipeline."""
    ours, (t_g, p_g) = rank_map(layout), layout.generation_sizes
    assert sorted(ours) == list(range(layout.size))
    tensor = [ours[start : start + t_g] for start in range(0, layout.size, t_g)]
    pipeline = [
        ours[first + offset : first + t_g * p_g : t_g]
        for first in range(0, layout.size, t_g * p_g)
        for offset in range(t_g)
    ]
    assert sorted(tensor) == sorted(generation_groups(layout, "tp"))
    assert sorted(pipeline) == sorted(generation_groups(layout, "pp"))


def test_the_papers_example() -> None:
    assert rank_map(Layout(4, 1, 2, generation=(2, 1))) == [0, 2, 1, 3, 4, 6, 5, 7]


def test_vllm_would_name_its_shared_memory_alike_in_all_processes() -> None:
    """After `env://`, the external launcher's way to meet. Where it does not, `groups` need not name it."""
    source = Path(find_spec("vllm").submodule_search_locations[0]) / "v1/worker/cpu_worker.py"
    told = source.read_text().partition('os.environ["VLLM_DIST_IDENT"] = ')[2][:200]
    assert 'init_method.split(":")[-1]' in told
