"""The layouts that a transition's parts are tested on, with real ranks."""

from __future__ import annotations

from hybridflow.parallel.layout import Layout

TENSOR = Layout(2, generation=(1, 1))
PIPELINE = Layout(1, 2, generation=(1, 1))
TURNS = Layout(2, 2, generation=(1, 2))
LONG = Layout(1, 4, generation=(1, 2))
LAYOUTS = [
    Layout(),
    TENSOR,
    PIPELINE,
    Layout(2),
    Layout(2, 2, generation=(1, 1)),
    Layout(2, 2, generation=(2, 1)),
    TURNS,
    LONG,
    Layout(2, 1, 2, generation=(1, 1)),
    Layout(2, 1, 2, generation=(1, 1), order="cp-ep-dp-tp-pp"),
]


def name(value: Layout | bool) -> str:
    """Of a test's parameter: a layout, or whether embeddings are tied."""
    if isinstance(value, bool):
        return "tied" if value else "untied"
    return f"{value.tensor}{value.pipeline}{value.data}-{value.generation}-{value.order[:2]}"
