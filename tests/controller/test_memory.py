"""Rows live as long as somebody names them, and no longer."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest
import ray
from ray._private.internal_api import node_stats

from hybridflow.batch import Batch, Ragged
from hybridflow.controller import put
from hybridflow.parallel.layout import Layout
from tests.controller.stage import Stage

pytestmark = pytest.mark.ranks

ROWS, LENGTH = 16, 4000  # 500 kB a column: too large to travel inside a message


def stored() -> int:
    """Bytes in the object store of this machine, after Ray has freed what nobody names: it does so every second."""
    gc.collect()
    time.sleep(1.5)
    (node,) = ray.nodes()
    stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"])
    return int(stats.store_stats.object_store_bytes_used)


def step(stage: Stage, number: int) -> None:
    """What an algorithm does with rows: some calls, a union of columns, shuffled minibatches."""
    scribe, halves = stage.start_role_once("scribe"), stage.start_role_once("scribe", Layout(tensor=2, data=2))
    words = Ragged.of([np.arange(LENGTH)] * (ROWS // 2))
    rows = put(Batch(n=np.arange(ROWS // 2), words=words)).repeat(2)
    rows |= scribe.lengthen(rows)
    rows |= halves.sum_words(rows)
    for part in rows.select(np.random.default_rng(number).permutation(ROWS)).split(2):
        scribe.measure(part | scribe.double(part))
    stage.supervisor.collect_metrics()


def test_memory_is_flat_over_80_steps(stage: Stage) -> None:
    used = []
    for number in range(80):
        step(stage, number)
        if number % 40 == 39:
            used.append(stored())
    assert max(used) - min(used) < 0.1 * ROWS * LENGTH * 8  # not even a part of one step's rows is left behind


def test_rows_that_are_named_are_kept_and_then_freed(stage: Stage) -> None:
    before, rows = stored(), put(Batch(words=Ragged.of([np.arange(LENGTH)] * ROWS)))
    kept = rows.select([3, 1])
    del rows
    assert stored() - before > ROWS * LENGTH * 8 * 0.9
    assert kept.get().ragged("words")[1].tolist() == list(range(LENGTH))
    del kept
    assert stored() - before < ROWS * LENGTH * 8 * 0.1
