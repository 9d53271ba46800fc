"""What a slot is, its pool says: on a cluster whose declared GPUs torch does not see, nothing runs on CPUs unasked."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import QWEN2
from tests.forked_ranks import command

PROGRAM = """
import sys
from contextlib import ExitStack

import ray
from ray.cluster_utils import Cluster

from hybridflow import preflight
from hybridflow.config.schema import Device
from hybridflow.controller import ResourcePool, Supervisor, cluster
from hybridflow.errors import HybridFlowError
from hybridflow.parallel.layout import Layout
from hybridflow.registry import import_plugins
from hybridflow.trainer.build import build

MODULE = "tests.controller.device_role"
import_plugins([MODULE])
started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2})
overrides = [f"ray.address={started.address}", f"actor.model.path={sys.argv[1]}", "placement.pools.main=4"]
said = []
with ExitStack() as stack:
    try:
        build(preflight.load("train", ["experiment=addition", *overrides]), stack, said.append)
    except HybridFlowError as error:
        print(type(error).__name__, error, said)
with cluster(started.address):
    try:
        ResourcePool("main", 2, Supervisor(), light=False, device=Device.gpu)
    except HybridFlowError as error:
        print(type(error).__name__, str(error).splitlines()[-1])
    pool = ResourcePool("main", 2, Supervisor(), light=False, device=Device.cpu, plugins=[MODULE])
    role = pool.start_role("device_role", Layout(data=2))
    print(role.platform().get(), ray.available_resources()["GPU"])
    pool.close()
started.shutdown()
"""


@pytest.mark.ranks
@pytest.mark.skipif(torch.cuda.is_available(), reason="its GPUs are declared where there are none")
def test_more_slots_than_gpus_never_run_on_cpus_in_silence(tmp_path: Path, forks: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    (tmp_path / "program.py").write_text(PROGRAM)
    program = command(str(tmp_path / "program.py"), str(tmp_path), environment=forks)
    environment = {**os.environ, **forks}
    ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    shortage, unseen, on_cpus = ran.stdout.splitlines()
    assert shortage.startswith("ConfigError placement.pools.main: 4 slots for models, each of which takes a GPU, but")
    assert shortage.endswith("[]"), "before any process is started"
    assert unseen.startswith("RoleError") and "sees none" in unseen
    assert on_cpus == "['cpu', 'cpu'] 2.0"
