"""Set partitions: which roles are colocated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def set_partitions(roles: Sequence[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yield every way to put roles into sets, each set and the sets in the order of the roles: of four roles 15."""
    if not roles:
        yield ()
        return
    last = roles[-1]
    for sets in set_partitions(roles[:-1]):
        yield (*sets, (last,))
        for place, one in enumerate(sets):
            yield (*sets[:place], (*one, last), *sets[place + 1 :])
