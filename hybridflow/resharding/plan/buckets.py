"""Buckets: the order in which weights travel, and which of them travel together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hybridflow.resharding.plan.program import Bucket, Item, Program

BUCKET_BYTES = 32 * 2**20  # the C library maps larger blocks anew each time; fresh pages cost more than copies


def program(items: Iterable[Item], layers: int, limit: int) -> Program:
    """Put items into buckets.

    Weights at the same place of each training stage follow each other and stay together where they fit: so the stages
    give equally much to a bucket, and one all-gather does for it.

    Args:
        items: in the weight table's order.
        layers: of one training stage.
        limit: elements of a bucket; a larger item is a bucket of its own.
    """
    rounds: dict[tuple[str, int | str], list[Item]] = {}
    for item in items:
        name = item.weight.name
        place = item.weight.place
        if isinstance(place, int):
            name = name.replace(f".{place}.", f".{place % layers}.", 1)
            place %= layers
        rounds.setdefault((name, place), []).append(item)
    return Program(tuple(_buckets(list(_units(rounds.values(), limit)), limit)))


def _units(rounds: Iterable[list[Item]], limit: int) -> Iterator[list[Item]]:
    """Group what stays in one bucket."""
    for items in rounds:
        if sum(item.moved for item in items) <= limit:
            yield items
        else:
            yield from ([item] for item in items)


def _buckets(units: Sequence[list[Item]], limit: int) -> Iterator[Bucket]:
    bucket: list[Item] = []
    size = 0
    for unit in units:
        more = sum(item.moved for item in unit)
        if bucket and size + more > limit:
            yield Bucket(tuple(bucket))
            bucket = []
            size = 0
        bucket += unit
        size += more
    if bucket:
        yield Bucket(tuple(bucket))
