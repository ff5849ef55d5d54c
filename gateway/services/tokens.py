"""The token service: writes down, for a call under way, what its tool may call for the caller.

Envoy asks it of each call to a method that uses others, once the rules have
let the call in, and hands the token to the tool (snapshot/delegate.py). The
contract's `uses` are not enough: the rules must permit each of them to the
tool itself, as a caller with the service's name, the tool's domain, and no
roles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any as Untyped

import grpc
from joserfc import jwt
from joserfc.jwk import OctKey

from gateway.snapshot import delegate
from gateway.snapshot.caller import DELEGATION
from gateway.snapshot.predicate import CALLER
from gateway.xds.messages import make, message_type
from governance.delegation import Delegation, service_of, tool_itself
from governance.words import Caller
from llmesh.caller import CALL_ID_KEY

__all__ = ["Tokens", "mint"]

SERVICE = "envoy.service.auth.v3.Authorization"
ALGORITHM = "HS256"
# Where a tool finds the mesh that it may call.
MESH = "x-llmesh-mesh"
_REQUEST, _RESPONSE = "envoy.service.auth.v3.CheckRequest", "envoy.service.auth.v3.CheckResponse"
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Envoy has refused any other.
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")


class Tokens:
    """Mints a token for each call that Envoy asks about. It refuses none: that is the rules' business."""

    def __init__(
        self, key: Callable[[], OctKey], *, may_act: Callable[[str, Caller], bool | None], address: str
    ) -> None:
        """key: signs from now on. address: the mesh's own, for its tools.

        may_act: whether the rules let a tool itself call a method, by its path; None for one that, for all it may know,
        is not on the mesh.
        """
        self._key = key
        self._may_act = may_act
        self._address = address

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server takes."""
        check = grpc.unary_unary_rpc_method_handler(
            self._check,  # pyright: ignore[reportArgumentType] - async is right here
            request_deserializer=message_type(_REQUEST).FromString,
            response_serializer=message_type(_RESPONSE).SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})

    async def _check(self, request: Untyped, _: object) -> Untyped:
        token = mint(self._delegation(request.attributes), self._key())
        added = {DELEGATION: token, MESH: self._address}
        return make(_RESPONSE, status={"code": 0}, ok_response={"headers": list(_headers(added))})

    def _delegation(self, attributes: Untyped) -> Delegation:
        """What the call may hand on. attributes: an AttributeContext."""
        http, facts = attributes.request.http, attributes.context_extensions
        derived = attributes.metadata_context.filter_metadata[CALLER]
        caller = _caller(derived["v"])
        before = tuple(derived["path"]) if "path" in derived else ()
        actor = tool_itself(service_of(http.path), facts[delegate.DOMAIN])
        may = {f"/{name}": self._may_act(f"/{name}", actor) for name in facts[delegate.USES].split(" ")}
        started_s = attributes.request.time.seconds + attributes.request.time.nanos / 1e9
        ends_s = math.ceil(started_s + _deadline_s(http.headers, facts))
        return Delegation(
            caller,
            path=(*before, http.path),
            methods=tuple(path for path, permitted in may.items() if permitted),
            parent=http.headers[CALL_ID_KEY],
            expires_s=min(ends_s, int(derived["ends_s"])) if "ends_s" in derived else ends_s,
            absent=tuple(path for path, permitted in may.items() if permitted is None),
        )


def mint(delegation: Delegation, key: OctKey) -> str:
    """The token that says so."""
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, delegation.claims(), key, algorithms=[ALGORITHM])


def _caller(value: Untyped) -> Caller:
    return Caller(
        issuer=value["issuer"],
        subject=value["subject"],
        roles=tuple(value["roles"]),
        domain=value["domain"],
        clearances=tuple(value["clearances"]),
    )


def _deadline_s(headers: Mapping[str, str], facts: Mapping[str, str]) -> float:
    """How long the call may take in all: what its caller gives it, up to what its contract does."""
    most_s = timedelta(milliseconds=int(facts[delegate.DEADLINE_MS])).total_seconds()
    stated = _TIMEOUT.fullmatch(headers.get(delegate.TIMEOUT, ""))
    return min(most_s, int(stated[1]) * _UNITS_S[stated[2]]) if stated else most_s


def _headers(added: Mapping[str, str]) -> Iterator[dict[str, Untyped]]:
    for key, value in added.items():
        yield {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
