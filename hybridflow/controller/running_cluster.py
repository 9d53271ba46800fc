"""A cluster that runs already: its address, and whether it answers, and to whom, before it is joined."""

from __future__ import annotations

import logging
import socket

import ray

KNOCK_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


def running_address() -> str:
    """Return the address that `auto` stands for. Raises ConnectionError if there is none."""
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as ray.init does
    return str(ray._private.services.canonicalize_bootstrap_address_or_die("auto"))


def knock(address: str) -> None:
    """Raise OSError if no Ray answers at `host:port`, and Ray's AuthenticationError if it wants another token.

    Ray itself would try for minutes, and then say neither.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OSError("an address is host:port")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S):
        pass
    if address.startswith("ray://"):  # another service
        return
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(address) as channel:  # with the token of this run, if it has one
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=KNOCK_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise ray.exceptions.AuthenticationError(error.details()) from error
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ConnectionError("something listens there, but it is no Ray that answers") from error


def warn_if_open(address: str) -> None:
    """Warn of a cluster that answers whoever asks: it runs programs for anyone who reaches its ports."""
    if address.startswith("ray://"):
        return
    import grpc

    with grpc.insecure_channel(address) as channel:  # without the token that this run may have
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=KNOCK_TIMEOUT_S)
        except grpc.RpcError:  # it wants a token, or TLS
            return
    log.warning(
        "ray.address: the cluster at %s asks for no token: whoever reaches its ports can run programs as its user, and "
        "read and change this run. Start it with RAY_AUTH_MODE=token (docs/security.md)",
        address,
    )
