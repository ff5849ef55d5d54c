"""What Envoy shows and believes over TLS: secrets, delivered by ADS, and the transport to tools that speak it.

The gateway reads the files and judges them, so that Envoy never meets a bad
one; and Envoy keeps what it has while the gateway is away.
"""

from __future__ import annotations

from typing import Any as Untyped

from google.protobuf.message import Message

from gateway.snapshot.ads import ADS
from gateway.xds.messages import make, pack, type_url

_TLS = "envoy.extensions.transport_sockets.tls.v3."
SECRET = type_url(_TLS + "Secret")
# Names of secrets: what the mesh port shows, what tools are shown, whom tools' certificates must be of.
PORT, TOOLS, TOOLS_AUTHORITY = "llmesh.port", "llmesh.tools", "llmesh.tools.authority"

TRANSPORT = "envoy.transport_sockets.tls"
# Where Envoy looks for what picks an endpoint's transport.
_MATCH = "envoy.transport_socket_match"
_PARAMETERS = {"tls_minimum_protocol_version": "TLSv1_2"}
# Where the gateway has no secret for tools, those without TLS need not wait for one.
_WAIT_S = 1


def certificate(name: str, chain: bytes, key: bytes) -> Message:
    """A certificate and its key, PEM, as a secret of that name."""
    held = {"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": key}}
    return make(_TLS + "Secret", name=name, tls_certificate=held)


def authority(name: str, certificates: bytes) -> Message:
    """Whom to believe, PEM, as a secret of that name."""
    return make(_TLS + "Secret", name=name, validation_context={"trusted_ca": {"inline_bytes": certificates}})


def of_callers() -> dict[str, Untyped]:
    """The mesh port's transport. The port opens once its certificate is there, never before."""
    context = make(
        _TLS + "DownstreamTlsContext",
        common_tls_context={
            "tls_params": _PARAMETERS,
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_secret(PORT, wait_s=0)],
        },
    )
    return {"name": TRANSPORT, "typed_config": pack(context)}


def to_tools() -> dict[str, Untyped]:
    """The transport to endpoints, as fields of a cluster: TLS, but to those that are marked as being without.

    An endpoint's certificate must be of the authority, and name the endpoint's `hostname`.
    """
    context = make(
        _TLS + "UpstreamTlsContext",
        common_tls_context={
            "tls_params": _PARAMETERS,
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_secret(TOOLS, wait_s=_WAIT_S)],
            "validation_context_sds_secret_config": _secret(TOOLS_AUTHORITY, wait_s=_WAIT_S),
        },
        auto_host_sni=True,
        auto_sni_san_validation=True,
    )
    # A message without fields.
    plain = {"type_url": type_url("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"), "value": b""}
    socket = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": plain}
    return {
        "transport_socket": {"name": TRANSPORT, "typed_config": pack(context)},
        "transport_socket_matches": [{"name": "plain", "match": _plain(), "transport_socket": socket}],
    }


def without() -> dict[str, Untyped]:
    """The metadata of an endpoint that is reached without TLS, in a cluster that has it."""
    return {"filter_metadata": {_MATCH: _plain()}}


def _plain() -> Message:
    return make("google.protobuf.Struct", fields={"plain": {"bool_value": True}})


def _secret(name: str, *, wait_s: int) -> dict[str, Untyped]:
    """wait_s: how long whoever needs it waits for it at the start; 0: for as long as it takes."""
    return {"name": name, "sds_config": {**ADS, "initial_fetch_timeout": {"seconds": wait_s}}}
