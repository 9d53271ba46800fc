"""Generation on a pool of its own: when one side dies, all of both ends at once, and what is said is that side's cause.

The calls, the transport and the supervision are the real ones; no engine is needed to see them (`apart_play`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.controller import ResourcePool, Supervisor, cluster, put
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.runtime.failure import RoleError
from hybridflow.trainer.disaggregated import DisaggregatedActor
from tests.forked_ranks import forking
from tests.trainer import disaggregated_rank_functions

pytestmark = pytest.mark.ranks

DEADLINE_S = 10.0
PLUGINS = [disaggregated_rank_functions.__name__]


@dataclass
class Apart:
    """Two training ranks and a rollout rank that have met."""

    supervisor: Supervisor
    groups: list[Any]
    actor: DisaggregatedActor

    def generate(self) -> BatchRef:
        """The refit and the call of a step."""
        rows = Batch(prompt_ids=Ragged.of([[1], [2, 3]], np.int64), sample_id=np.arange(2))
        return self.actor.generate_sequences(put(rows))


@pytest.fixture(scope="module")
def local_cluster(forks: dict[str, str]) -> Iterator[None]:
    import_plugins(PLUGINS)
    with forking(forks), cluster(slots=3):
        yield


@pytest.fixture
def apart(local_cluster: None) -> Iterator[Apart]:
    supervisor = Supervisor()
    pools = [ResourcePool(name, slots, supervisor, plugins=PLUGINS) for name, slots in (("train", 2), ("rollout", 1))]
    groups = [pools[0].start_role("giver", Layout(2)), pools[1].start_role("taker", Layout())]
    actor = DisaggregatedActor(*groups)
    actor.connect(pools[0].meeting_point(pools[1].places))
    yield Apart(supervisor, groups, actor)
    for pool in pools:
        pool.close()


@pytest.mark.parametrize(
    ("at", "rank", "call"),
    [
        ("take", 0, "taker.receive_weights"),
        ("generate", 0, "taker.generate_sequences"),
        ("give", 1, "giver.send_weights"),
    ],
    ids=["rollout-in-refit", "rollout-in-generation", "training-in-refit"],
)
def test_a_side_that_dies_is_the_cause_and_nobody_is_left(apart: Apart, at: str, rank: int, call: str) -> None:
    assert apart.generate().get().ragged("weight_version").values.tolist() == [[0, 1], [0, 1]]
    pids = [pid for group in apart.groups for pid in group.pid().get()]
    apart.supervisor.begin_step(3)
    begin = time.monotonic()
    for group in apart.groups:
        group.learn(at, rank)
    apart.generate()
    with pytest.raises(RoleError) as found:
        apart.supervisor.finish_step()
    said = (
        rf"{re.escape(call)} failed on rank {rank} \(127\.0\.0\.1\) in step 3: its process \d+ died: killed by SIGKILL"
    )
    assert re.match(said, str(found.value).splitlines()[-1])
    while any(map(psutil.pid_exists, pids)) and time.monotonic() - begin < DEADLINE_S:
        time.sleep(0.1)
    assert len(pids) == 3 and not any(map(psutil.pid_exists, pids))
    assert time.monotonic() - begin < DEADLINE_S
