"""Nodes of the cluster: what each has, what is free of it, and what pools of this run have taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node
from ray.util.client import ray as ray_client
from ray.util.placement_group import placement_group_table

KINDS = ("CPU", "GPU")
MOST_TOLD = 6  # kinds of nodes

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class ClusterNode:
    """Node of the cluster.

    Attributes:
        total: what it has.
        free: what nobody has taken of it; None: nobody tells, as through Ray's client.
        others: what it has beside what pools of this run have taken: the most that it will ever give.
    """

    address: str
    total: Amounts
    free: Amounts | None
    others: Amounts


def pool_name(pool: str) -> str:
    """Return how the slots of a pool of this run are called in the cluster's table, before anything of their own."""
    return f"hybridflow-{ray.get_runtime_context().get_job_id()}-{pool}"


def living_nodes(asking: str = "") -> list[ClusterNode]:
    """List the nodes that live. Asks the cluster's head.

    Args:
        asking: the name of slots that are being waited for: what they have got by now is no other's.
    """
    free = None if ray_client.is_connected() else available_resources_per_node()
    taken = _taken(asking)
    return [
        ClusterNode(
            node["NodeManagerAddress"],
            _amounts(node["Resources"]),
            None if free is None else _amounts(free.get(node["NodeID"], {})),
            {
                kind: amount - taken.get((node["NodeID"], kind), 0.0)
                for kind, amount in _amounts(node["Resources"]).items()
            },
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def described(nodes: Sequence[ClusterNode]) -> str:
    """Describe in words what nodes have and what is free there; nodes that are alike together."""
    alike: dict[str, list[str]] = {}
    for address, has in sorted((node.address, _has(node.total, node.free)) for node in nodes):  # Ray has no order
        alike.setdefault(has, []).append(address)
    told = [f"{_named(addresses)} {has}" for has, addresses in [*alike.items()][:MOST_TOLD]]
    more = sum(map(len, [*alike.values()][MOST_TOLD:]))
    return "; ".join([*told, *([f"{more} more nodes"] if more else [])]) or "no node"


def in_words(amounts: Amounts) -> str:
    """Write amounts with their units: `2 CPUs and 2 GPUs`."""
    return " and ".join(f"{amount:g} {kind}{'' if amount == 1 else 's'}" for kind, amount in amounts.items())


def _taken(asking: str) -> dict[tuple[str, str], float]:
    """Return what pools of this run have beside those, by node and kind."""
    taken: dict[tuple[str, str], float] = {}
    for table in placement_group_table().values():
        if table["name"] == asking or not table["name"].startswith(pool_name("")):
            continue
        if table["state"] == "REMOVED":  # Ray keeps them in its table, with the nodes that they were on
            continue
        for bundle, node in table["bundles_to_node_id"].items():
            for kind, amount in table["bundles"][bundle].items():
                taken[node, kind] = taken.get((node, kind), 0.0) + amount
    return taken


def _amounts(resources: Mapping[str, float]) -> dict[str, float]:
    return {kind: resources.get(kind, 0.0) for kind in KINDS}


def _has(total: Amounts, free: Amounts | None) -> str:
    there = {kind: amount for kind, amount in total.items() if amount or kind == "CPU"}
    if free is None:
        return f"with {in_words(there)}"
    parts = (f"{free[kind]:g} of {in_words({kind: amount})}" for kind, amount in there.items())
    return f"with {' and '.join(parts)} free"


def _named(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return f"1 node ({addresses[0]})"
    shown = ", ".join(addresses[:3])
    return f"{len(addresses)} nodes ({shown}{', …' if len(addresses) > 3 else ''}), each"
