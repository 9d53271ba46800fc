"""Draws resharding.svg, who holds what, from the plan itself: `python docs/images/resharding.py` writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from hybridflow.engines.base import make_shardings
from hybridflow.engines.sharding import Shardings
from hybridflow.models import ModelShape, Weight, table
from hybridflow.parallel.layout import Layout
from hybridflow.resharding.plan import Plan, make_plan

SHAPE = ModelShape(
    family="llama", layers=12, hidden=768, ffn=2048, heads=8, kv_heads=4, head_dim=96, vocab=32000, tied=False,
    qkv_bias=False, norm_eps=1e-5, rope_theta=1e4, max_positions=256,
)  # fmt: skip
TENSOR, GENERATION = 4, (2, 1)
KEPT, GATHERED, PASSING, REDUNDANT = "#2f6fb2", "#a9c9e8", "#e3e3df", "#e0953c"
LEGEND = {
    KEPT: "held in training, and generated with",
    GATHERED: "received, and generated with",
    PASSING: "received, and let go of again",
    REDUNDANT: "held in training, and not generated with: redundant",
}
WIDTH, BAR, ROW, PANEL = 300, 30, 58, 485
Span = tuple[float, float]


def picture() -> str:
    """Draw the SVG."""
    panels = [panel("hybrid", "hybrid: shards nest", 20), panel("hybrid_v", "hybrid_v: neighbors", 20 + PANEL)]
    notes = [
        f'<rect x="{20 + number % 2 * PANEL}" y="{348 + number // 2 * 26}" width="16" height="16" fill="{color}"/>'
        f'<text x="{44 + number % 2 * PANEL}" y="{361 + number // 2 * 26}">{text}</text>'
        for number, (color, text) in enumerate(LEGEND.items())
    ]
    title = "What four ranks hold of a model when tensor size 4 becomes 2, by HybridFlow and by HybridFlow-V"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 440" font-family="Helvetica, Arial, sans-serif" '
            f'font-size="14" role="img" aria-label="{title}">',
            '<rect width="980" height="440" rx="10" fill="#fbfbf9"/>',
            '<g fill="#1d2733">',
            *(line for lines in panels for line in lines),
            *notes,
            '<rect x="21" y="401" width="14" height="14" fill="none" stroke="#1d2733" stroke-width="2"/>'
            '<text x="44" y="413">the generation shard. A bar is the model (M), as tensor parallelism cuts it</text>',
            "</g>",
            "</svg>\n",
        ]
    )


def panel(method: str, title: str, x: int) -> Iterator[str]:
    """Draw the four ranks by one method."""
    layout = Layout(TENSOR, generation=GENERATION, nested=method != "hybrid_v")
    shardings = make_shardings("megatron", "vllm", SHAPE, layout, layout)
    plan = make_plan(shardings, layout, itemsize=4, bucket_bytes=2**24, method=method)
    model = 4 * sum(math.prod(weight.shape) for weight in table(SHAPE) if weight.axis is not None)
    replicas = [
        [r for r, at in enumerate(layout.generation_coordinates) if at.dp == dp] for dp in range(layout.replicas)
    ]
    groups = " and ".join("{" + ", ".join(map(str, ranks)) + "}" for ranks in replicas)
    yield f'<text x="{x}" y="40" font-size="17" font-weight="bold">{title}</text>'
    yield f'<text x="{x}" y="62" fill="#5a6472">replicas of tensor size {GENERATION[0]}: ranks {groups}</text>'
    for rank in range(layout.size):
        y = 84 + rank * ROW
        yield f'<text x="{x}" y="{y + 20}">rank {rank}</text>'
        yield from bar(plan, shardings, layout, rank, x + 58, y)
        yield f'<text x="{x + 58 + WIDTH + 10}" y="{y + 20}">+ {plan.received[rank] / model:.2f} M</text>'
    redundant = f"{max(plan.redundant) * 4 / model:.2f} M at most" if any(plan.redundant) else "nothing"
    peak = "M / 2 and two buckets" if method == "hybrid" else "M"
    yield (
        f'<text x="{x}" y="{84 + layout.size * ROW + 8}" fill="#5a6472">'
        f"peak of parameters: {peak}; redundant: {redundant}</text>"
    )


def bar(plan: Plan, shardings: Shardings, layout: Layout, rank: int, x: int, y: int) -> Iterator[str]:
    """One rank: what it sees of the model, and what becomes of it. All weights are cut alike, so one stands for all."""
    weight = next(weight for weight in table(SHAPE) if "down_proj" in weight.name)
    train = share(weight, shardings.training.region(weight, layout.coordinates[rank]) or (0, 0))
    generates = share(weight, shardings.generation.region(weight, layout.generation_coordinate(rank)) or (0, 0))
    exchange = plan.exchange(rank)
    [item] = [item for item in exchange.program.items if item.weight.name == weight.name]
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{BAR}" fill="none" stroke="#aab4c0" stroke-dasharray="3 3"/>'
    for giver, span, _ in item.parts:
        part = share(weight, span)
        inside = generates[0] <= part[0] and part[1] <= generates[1]
        if exchange.givers[giver] == rank:
            assert part == train
            yield block(part, KEPT if inside else REDUNDANT, x, y)
        else:
            yield block(part, GATHERED if inside else PASSING, x, y)
    yield block(generates, "none", x, y, outline=' stroke="#1d2733" stroke-width="2"')


def share(weight: Weight, span: tuple[int, int]) -> Span:
    """Return a part of the split axis, of 1."""
    whole = weight.shape[weight.axis or 0]
    return span[0] / whole, span[1] / whole


def block(span: Span, color: str, x: int, y: int, outline: str = "") -> str:
    """Draw a part of a bar."""
    start, width = x + WIDTH * span[0], WIDTH * (span[1] - span[0])
    return f'<rect x="{start:g}" y="{y}" width="{width:g}" height="{BAR}" fill="{color}"{outline}/>'


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(picture())
