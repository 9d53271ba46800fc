"""Machines with one thing wrong each: it is found, it alone, and said with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hybridflow.observe.host_memory import HostMemory
from hybridflow.preflight.finding import Finding, Status, bad, ok, warn, worst
from hybridflow.preflight.machine import Machine, RayService, Room
from hybridflow.preflight.machine_checks import findings
from hybridflow.preflight.torch_facts import TorchFacts

GIB = 2**30
TORCH = TorchFacts(version="2.13.0+cpu", capability="AVX512", bf16=True)
WELL = Machine(
    cpus=8,
    memory=HostMemory(24 * GIB, 32 * GIB),
    shared_memory=Room("/dev/shm", 16 * GIB, 16 * GIB),
    rooms={"runs": Room("/home/me/runs", 100 * GIB, 200 * GIB), "temporary files": Room("/tmp", 50 * GIB, 60 * GIB)},
    compiler="/usr/bin/g++",
    hub_cache="/home/me/.cache",
)


def wrong(torch: TorchFacts = TORCH, **facts: Any) -> list[Finding]:
    """What is not ok with a machine that is well but for these facts."""
    return [finding for finding in findings(replace(WELL, **facts), torch) if finding.status is not Status.ok]


def test_a_machine_that_is_well_has_nothing_to_do() -> None:
    found = findings(WELL, TORCH)
    assert worst(found) is Status.ok and not any(finding.advice for finding in found)
    assert [finding.subject for finding in found][:4] == ["system", "devices", "CPU", "cores"]


@pytest.mark.parametrize(
    ("facts", "status", "subject", "found", "advice"),
    [
        ({"system": "Darwin"}, "bad", "system", "Darwin", "Linux"),
        ({"processor": "aarch64"}, "warn", "system", "aarch64", "x86-64"),
        ({"gpus": 2}, "bad", "devices", "2 GPUs, but torch 2.13.0+cpu sees none", "placement.device=cpu"),
        ({"cpu_quota": 2.5}, "warn", "cores", "8 seen, but this container may take the time of 2.5", "at 2 slots"),
        ({"memory": HostMemory(GIB, 32 * GIB)}, "bad", "memory", "1.0 of 32.0 GiB left, for 0 ranks", "end what"),
        ({"memory": HostMemory(3 * GIB, 4 * GIB)}, "warn", "memory", "for 1 rank of", "placement.pools.main=1"),
        ({"memory": None}, "warn", "memory", "unknown", "2 GiB"),
        ({"shared_memory": None}, "bad", "/dev/shm", "there is none", "--shm-size=8g"),
        ({"shared_memory": Room("/dev/shm", GIB // 16, GIB // 16)}, "warn", "/dev/shm", "slow", "--shm-size=8g"),
        (
            {"shared_memory": Room("/dev/shm", GIB, GIB), "memory": HostMemory(64 * GIB, 64 * GIB)},
            "warn",
            "/dev/shm",
            "1.0 GiB of 1.0 GiB free; Ray's store takes 9.3 GiB, so it is put into files",
            "--shm-size=10g, or a smaller store: ray.object_store_gib=1",
        ),
        ({"rooms": {"runs": Room("/full/runs", GIB // 2, GIB)}}, "bad", "disk", "for runs in /full/runs", "run.root="),
        ({"rooms": {"runs": Room("/locked", GIB, GIB, False)}}, "bad", "disk", "cannot be written", "run.root"),
        ({"rooms": {"temporary files": Room("/t", 5 * GIB, GIB)}}, "warn", "disk", "in /t", "TMPDIR="),
        (
            {"temporary": "TMPDIR: /a is 90 bytes long, and paths would be longer: set RAY_TMPDIR to a folder"},
            "bad",
            "sockets",
            "TMPDIR: /a is 90 bytes long, and paths would be longer",
            "set RAY_TMPDIR to a folder",
        ),
        ({"loopback": "Network is unreachable"}, "bad", "ports", "127.0.0.1: Network is unreachable", "ip link set lo"),
        (
            {"proxies": {"http_proxy": "http://me:secret@proxy:3128"}, "no_proxy": "example.com,localhost"},
            "warn",
            "proxies",
            "http_proxy set, also for 127.0.0.1",
            "no_proxy=example.com,localhost,127.0.0.1",
        ),
        ({"open_files": 256}, "bad", "open files", "at most 256", "8192"),
        ({"open_files": 4096}, "warn", "open files", "at most 4096", "8192"),
        ({"processes": 100}, "bad", "processes", "at most 100", "--pids-limit"),
        ({"processes": 1000}, "warn", "processes", "at most 1000", "--pids-limit"),
        (
            {"services": (RayService(71, "gcs_server", "/a", True), RayService(72, "raylet", "/a", True))},
            "warn",
            "Ray",
            "left of runs that were killed: 2 processes",
            "kill 71 72",
        ),
        ({"services": (RayService(71, "raylet", "/tmp/hf-ray-a"),)}, "warn", "Ray", "1 run going on here", "share"),
        ({"environment": {"PYTHONPATH": "/mine"}}, "warn", "PYTHONPATH", "/mine", "unset"),
        ({"compiler": ""}, "warn", "g++", "not on the PATH", "apt-get install g++"),
        ({"sandbox": "bwrap is not on the PATH; more"}, "warn", "sandbox", "bwrap is not", "install bubblewrap"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(
    facts: dict[str, Any], status: str, subject: str, found: str, advice: str
) -> None:
    (one,) = wrong(**facts)
    assert (one.status, one.subject) == (status, subject)
    assert found in one.found and advice in one.advice
    assert "secret" not in one.found + one.advice


def test_a_cpu_without_the_instructions() -> None:
    (one,) = wrong(replace(TORCH, capability="DEFAULT"))
    assert one.status is Status.bad and "AVX2" in one.found
    (cpu,) = (
        finding for finding in findings(WELL, replace(TORCH, capability="AVX2", bf16=False)) if finding.subject == "CPU"
    )
    assert cpu.status is Status.ok and "no AVX-512" in cpu.found and "no bfloat16" in cpu.found


@pytest.mark.parametrize(
    ("facts", "subject", "found"),
    [
        ({"environment": {"CUDA_VISIBLE_DEVICES": ""}}, "devices", "CUDA_VISIBLE_DEVICES='' shows no GPU"),
        ({"environment": {"RAY_ADDRESS": "10.0.0.4:6379"}}, "RAY_ADDRESS", "only ray.address=auto looks at it"),
        ({"proxies": {"http_proxy": "http://p"}, "no_proxy": "localhost 127.0.0.1"}, "proxies", "not for this machine"),
        ({"abandoned": ("/tmp/hf-ray-a",)}, "Ray", "1 folder of killed runs, which the next run removes"),
        ({"services": (RayService(7, "raylet"),)}, "Ray", "`ray start` made (process 7)"),
        ({"hub_offline": True}, "hub", "only what /home/me/.cache has"),
        ({"cpu_quota": 8.0}, "cores", "8; a slot"),
        (
            {"shared_memory": Room("/dev/shm", 15 * GIB, 16 * GIB), "memory": HostMemory(64 * GIB, 64 * GIB)},
            "/dev/shm",
            "Ray's store takes 14.2 GiB",  # and not 30 %
        ),
    ],
)
def test_what_is_told_though_nothing_is_to_be_done(facts: dict[str, Any], subject: str, found: str) -> None:
    told = {finding.subject: finding for finding in findings(replace(WELL, **facts), TORCH)}
    assert found in told[subject].found and not wrong(**facts)


def test_gpus_are_named_and_the_cpu_then_does_not_matter() -> None:
    torch = TorchFacts(version="2.13.0", capability="DEFAULT", gpus=("NVIDIA H200", "NVIDIA H200"))
    found = findings(replace(WELL, gpus=2), torch)
    assert [one.found for one in found if one.subject == "devices"] == ["2 GPUs: NVIDIA H200"]
    assert "CPU" not in {one.subject for one in found} and worst(found) is Status.ok


def test_the_worst_of_findings() -> None:
    assert worst([]) is Status.ok
    assert worst([warn("a", "b", "c"), ok("a", "b"), bad("a", "b", "c"), ok("a", "b")]) is Status.bad
