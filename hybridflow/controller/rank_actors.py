"""Ray actors of a pool's ranks: one in each of its slots, from their start to their end."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hybridflow.controller import process_deaths, ray_services
from hybridflow.controller.process_watch import ProcessWatch
from hybridflow.controller.slots import Slots
from hybridflow.placement.node_bundles import ranks_by_node
from hybridflow.runtime.messages import Place


def usual_rank_class() -> type:
    """Find the class of ranks by name, for scripts that start a pool themselves.

    The controller's modules import of the other side of a call nothing but its messages; so whoever reads or tests them
    needs no worker. `trainer.build` hands the class over.
    """
    rank_class: type = import_module("hybridflow.runtime.rank").Rank
    return rank_class


def start_actors(rank_class: type, reserved: Slots, per_bundle: int, gpus: float) -> list[Any]:
    """Begin to start an actor in each slot; return their handles by rank, ranks in a row on one node.

    Args:
        per_bundle: slots of a bundle.
        gpus: that each slot has to itself.
    """
    actor = ray.remote(rank_class)
    return [
        actor.options(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(reserved.group, bundle),
        ).remote(rank)
        for rank, bundle in enumerate(ranks_by_node(reserved.nodes, per_bundle))
    ]


def watch_actors(name: str, places: Sequence[Place]) -> ProcessWatch:
    """See to it that the end of a process on this machine can be told; return what looks after all of them."""
    here = ray.get_runtime_context().get_node_id()
    watch = ProcessWatch(name, places, here)
    for place in places:
        if place.node == here:
            process_deaths.watch(place.pid)
    return watch


def end_actors(ranks: Sequence[Any], places: Sequence[Place], watch: ProcessWatch | None) -> None:
    """End actors, and what looks after their processes; those that have said where they are have `places`."""
    for handle in () if ray_services.lost() else ranks:  # the services would have to pass it on
        ray.kill(handle)
    if watch is not None:
        for rank in range(len(places)):  # also those that are stopped, which Ray's message does not reach
            watch.kill(rank)
        watch.close()
    for place in places:
        process_deaths.forget(place.pid)
