"""Exponents of curves, and their picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling import SIZES, curve, exponent, points
from benchmarks.scaling_plot import svg


@given(power=st.floats(0, 3), factor=st.floats(1e-3, 1e3))
def test_a_power_of_the_size_is_its_exponent(power: float, factor: float) -> None:
    sizes = [1, 2, 4, 8, 16, 32, 64]
    assert exponent(sizes, [factor * size**power for size in sizes]) == pytest.approx(power, abs=1e-3)


def test_what_is_always_there_is_left_to_small_sizes() -> None:
    sizes = [1, 10, 100, 1000, 2000, 4000, 8000]
    assert exponent(sizes, [1 + size / 100 for size in sizes]) == pytest.approx(1, abs=0.1)
    assert exponent(sizes, [1 + (size / 1000) ** 2 for size in sizes]) > 1.3


@pytest.mark.parametrize("kind", SIZES)
def test_one_thing_is_varied_at_a_time_from_the_same_point(kind: str) -> None:
    for varied, sizes in SIZES[kind].items():
        along = points(kind, varied)
        assert [getattr(point, varied) for point in along] == list(sizes)
        others = {tuple(getattr(point, name) for name in SIZES[kind] if name != varied) for point in along}
        assert len(others) == 1


def test_curves_are_drawn_with_their_exponents() -> None:
    seconds = {point: point.rows / 100 for point in points("step", "rows")}
    picture = svg(
        {"step": {"rows": curve("step", "rows", seconds)}, "framework": {"rows": curve("step", "rows", seconds)}}
    )
    root = ElementTree.fromstring(picture)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"rows of a step", "step: exponent 1.00", "framework: exponent 1.00", "64", "1024"} <= {*texts}
    assert len([*root.iter("{http://www.w3.org/2000/svg}polyline")]) == 2
