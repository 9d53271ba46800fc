"""A machine is known by one address, from which gloo and the engines take where they listen."""

from __future__ import annotations

import os

import pytest

from hybridflow.parallel.host_address import LOOPBACK, ONE_MACHINE, VARIABLE, be_reachable, interface_of, listen_at

ENGINES = "SOME_ENGINE_HOST_IP"
ELSEWHERE = "203.0.113.7"  # RFC 5737: nobody's


@pytest.fixture(autouse=True)
def nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "GLOO_SOCKET_IFNAME", ENGINES):
        monkeypatch.setenv(name, "")
        del os.environ[name]


def test_the_interface_of_an_address() -> None:
    assert interface_of(LOOPBACK) == "lo"
    assert interface_of(ELSEWHERE) is None


def test_a_machine_is_reachable_where_its_cluster_knows_it() -> None:
    be_reachable(ELSEWHERE)
    assert os.environ[VARIABLE] == ELSEWHERE and "GLOO_SOCKET_IFNAME" not in os.environ
    be_reachable(LOOPBACK)
    assert (os.environ[VARIABLE], os.environ["GLOO_SOCKET_IFNAME"]) == (ELSEWHERE, "lo")


@pytest.mark.parametrize(
    ("said", "engines", "expected"),
    [
        ({}, None, LOOPBACK),  # no cluster: an engine that is used alone
        ({}, "10.0.0.9", "10.0.0.9"),
        ({VARIABLE: ELSEWHERE}, None, ELSEWHERE),
        ({VARIABLE: ELSEWHERE}, "10.0.0.9", "10.0.0.9"),  # another interface of that machine
        (ONE_MACHINE, None, LOOPBACK),
        (ONE_MACHINE, "10.0.0.9", LOOPBACK),  # left over from a cluster: no port may be open to others
    ],
)
def test_an_engine_listens_where_its_machine_is_known(
    said: dict[str, str], engines: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**said, **({ENGINES: engines} if engines else {})}.items():
        monkeypatch.setenv(name, value)
    listen_at(ENGINES)
    assert os.environ[ENGINES] == expected
