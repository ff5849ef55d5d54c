"""Attacks by what a request says: its path, fields, message and trailers."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

from tests.hostile.calls import GOOD, PATH, Act, Case, End, Request, good
from tests.hostile.connection import Connection, grpc_frame

SERVICE = b"acme.testing.v1.Echo"
GZIP = {b"grpc-encoding": b"gzip"}
SOON = {b"grpc-timeout": b"500m"}
BOMB = gzip.compress(bytes(8 << 20))


def _flagged(message: bytes, flag: int = 1) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4) + message


def answered(name: str, act: Act, code: int, words: str = "") -> Case:
    """A case that is answered with a code of gRPC, and words."""
    return Case(name, act, End.ANSWERED, code, words)


def malformed(name: str, act: Act) -> Case:
    """A case that HTTP/2 wants ended by a reset of its stream (RFC 9113, 8.1.1)."""
    return Case(name, act, End.RESET)


def not_grpc(name: str, act: Act, words: str) -> Case:
    """A case that is answered in the words of HTTP."""
    return Case(name, act, End.HTTP, 415, words)


def paths(given: Mapping[str, bytes], end: End, code: int = 0, words: str = "") -> tuple[Case, ...]:
    """A case for each path, by what is wrong with it."""
    return tuple(Case(f"the path {name}", Request({b":path": path}), end, code, words) for name, path in given.items())


NO_MESSAGE = "the request is not a message of this method's type"
MESSAGES = (
    # The tool waits for the rest, for as long as the call may last.
    answered("no message", Request(SOON, body=b""), 4),
    answered("a prefix cut short", Request(SOON, body=b"\0\0\0"), 4),
    answered("a message shorter than its prefix says", Request(SOON, body=b"\0\0\0\0\x0aabc"), 4),
    answered("more declared than a tool takes", Request(SOON, body=b"\0\0\x50\0\0abc"), 4),
    # The tool says so, or its reset is first.
    Case("4 GiB declared", Request(body=b"\0\xff\xff\xff\xffabc"), End.FAILED),
    # The tool says so too, or Envoy must end the caller's connection to it (docs/adr/014).
    Case("compressed by nothing that is named", Request(body=_flagged(gzip.compress(b""))), End.FAILED),
    answered("an unknown flag", Request(body=_flagged(b"", 0xFF)), 0),
    answered("two messages where one is due", Request(body=GOOD + GOOD), 0),
    answered("bytes after the message", Request(body=GOOD + b"\0\0"), 0),
    answered("no protobuf", Request(body=grpc_frame(b"\xff" * 64)), 3, NO_MESSAGE),
    answered("text that is not UTF-8", Request(body=grpc_frame(b"\x0a\x02\xff\xfe")), 3, NO_MESSAGE),
    answered("a field longer than its message", Request(body=grpc_frame(b"\x0a\xff\xff\xff\xff\x0f")), 3, NO_MESSAGE),
    answered("groups within groups", Request(body=grpc_frame(b"\x1b" * 10_000)), 3, NO_MESSAGE),
    Case("gzip that is none", Request(GZIP, body=_flagged(b"no gzip")), End.FAILED),
    Case("gzip cut short", Request(GZIP, body=_flagged(gzip.compress(b"\0" * 100)[:-9])), End.FAILED),
    answered("a gzip bomb", Request(GZIP, body=_flagged(BOMB)), 3, NO_MESSAGE),
    Case("an encoding nobody knows", Request({b"grpc-encoding": b"llzip"}, body=_flagged(b"x")), End.FAILED),
    malformed("a field of accepted encodings with DEL", Request({b"grpc-accept-encoding": b"\x7f,,,;q=1e9"})),
)
NO_TIMEOUT = "grpc-timeout is malformed: expected 1 to 8 digits and one of H M S m u n"
TIMEOUTS = (
    *(
        answered(f"a deadline of `{value.decode()}`", Request(added=[(b"grpc-timeout", value)]), 3, NO_TIMEOUT)
        for value in (b"abc", b"1", b"5X", b"123456789S", b"-1S", b"1.5S", b"1S,1S", b"0x1S")
    ),
    answered("two deadlines", Request(added=[(b"grpc-timeout", b"5S"), (b"grpc-timeout", b"6S")]), 3, NO_TIMEOUT),
    # As if it were not there.
    answered("an empty deadline", Request(added=[(b"grpc-timeout", b"")]), 0),
    answered("a deadline of nothing", Request(added=[(b"grpc-timeout", b"0n")]), 4),
)
UNKNOWN_PATHS = {
    "in small letters": PATH.lower(),
    "in capitals": PATH.upper(),
    "with one capital less": b"/acme.testing.v1.echo/Unary",
    "with %2F": b"/" + SERVICE + b"%2FUnary",
    "percent-encoded": b"/" + SERVICE + b"/%55nary",
    "of a percent-encoded service": b"/acme%2Etesting.v1.Echo/Unary",
    "twice percent-encoded": b"/" + SERVICE + b"/%2555nary",
    "with half a percent code": b"/" + SERVICE + b"/Unary%",
    "with %00": PATH + b"%00",
    "with two slashes first": b"/" + PATH,
    "with two slashes": b"/" + SERVICE + b"//Unary",
    "with a slash last": PATH + b"/",
    "with /./": b"/./" + SERVICE + b"/Unary",
    "with /../": b"/x/../" + SERVICE + b"/Unary",
    "with .. after the service": b"/" + SERVICE + b"/../" + SERVICE + b"/Unary",
    "with %2e%2e": b"/x/%2e%2e/" + SERVICE + b"/Unary",
    "with a backslash": b"/" + SERVICE + b"\\Unary",
    "with another method's after": PATH + b"/acme.testing.v1.Echo/Erase",
    "with a parameter": PATH + b";x=1",
    "of one slash": b"/",
    "of a service alone": b"/" + SERVICE,
    "of a service and a slash": b"/" + SERVICE + b"/",
    "with a Latin letter": PATH + b"\xe9",
    "with a letter that looks alike": b"/acme.testing.v1.\xd0\x95cho/Unary",
    "of the gateway's programming": b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    "of the registry": b"/llmesh.api.registry.v1.RegistryService/Register",
}
REFUSED_PATHS = {
    "with a query": PATH + b"?token=secret",
    "with a fragment": PATH + b"#x",
    "of 600 bytes": PATH + b"a" * 600,
    "of 40,000 bytes": PATH + b"a" * 40_000,
}
MALFORMED_PATHS = {
    "that begins with %2f": b"%2f" + SERVICE + b"/Unary",
    "that is a query": b"?",
    "of a whole URI": b"http://localhost" + PATH,
    "of a URI elsewhere": b"http://elsewhere:80" + PATH,
    "without a slash": PATH[1:],
    "of a star": b"*",
    "of nothing": b"",
    "with a space": b"/" + SERVICE + b"/Un ary",
    "with a space last": PATH + b" ",
    "with a tab": PATH + b"\t",
    "with a vertical tab": PATH + b"\x0b",
    "with CR LF": PATH + b"\r\nx-llmesh-subject: root",
    "with LF": PATH + b"\n",
    "with NUL": PATH + b"\0",
    "with DEL": PATH + b"\x7f",
}
PATHS = (
    *paths(UNKNOWN_PATHS, End.ANSWERED, 12, "on this mesh; `llmesh tools list` shows what there is"),
    *paths(REFUSED_PATHS, End.ANSWERED, 3, "a call's path is /package.Service/Method"),
    *paths(MALFORMED_PATHS, End.RESET),
    malformed("no path", Request(without=[b":path"])),
    malformed("two paths", Request(first=[(b":path", PATH)])),
)
FIELDS = (
    malformed("two methods", Request(first=[(b":method", b"POST")])),
    malformed("two authorities", Request(first=[(b":authority", b"elsewhere")])),
    malformed("two schemes", Request(first=[(b":scheme", b"https")])),
    malformed("no method", Request(without=[b":method"])),
    malformed("no scheme", Request(without=[b":scheme"])),
    malformed("no authority", Request(without=[b":authority"])),
    malformed("an empty authority", Request({b":authority": b""})),
    malformed("an authority with a user", Request({b":authority": b"root@localhost"})),
    malformed("an authority with CR LF", Request({b":authority": b"localhost\r\nx: y"})),
    malformed("an authority that is a path", Request({b":authority": b"localhost/../admin"})),
    answered("a host beside the authority", Request(added=[(b"host", b"elsewhere")]), 0),
    answered("a scheme of https", Request({b":scheme": b"https"}), 0),
    answered("a scheme of javascript", Request({b":scheme": b"javascript"}), 0),
    malformed("a pseudo-field after others", Request(without=[b":path"], added=[(b":path", PATH)])),
    malformed("an unknown pseudo-field", Request(first=[(b":llmesh", b"x")])),
    malformed("the pseudo-field of answers", Request(first=[(b":status", b"200")])),
    malformed("a name in capitals", Request(added=[(b"X-Own", b"x")])),
    malformed("a name of nothing", Request(added=[(b"", b"x")])),
    malformed("a name with a space", Request(added=[(b"x own", b"x")])),
    malformed("a name with a colon", Request(added=[(b"x:own", b"x")])),
    malformed("a name with NUL", Request(added=[(b"x\0own", b"x")])),
    malformed("a value with CR LF", Request(added=[(b"x-own", b"x\r\nx-llmesh-subject: root")])),
    malformed("a value with LF", Request(added=[(b"x-own", b"x\nroot")])),
    malformed("a value with NUL", Request(added=[(b"x-own", b"x\0root")])),
    answered("a value with spaces around", Request(added=[(b"x-own", b" x ")]), 0),
    Case("a binary value that is no base64", Request(added=[(b"x-own-bin", b"!!!!")]), End.FAILED),
    malformed("connection: close", Request(added=[(b"connection", b"close")])),
    malformed("connection: upgrade", Request(added=[(b"connection", b"upgrade"), (b"upgrade", b"h2c")])),
    malformed("transfer-encoding: chunked", Request(added=[(b"transfer-encoding", b"chunked")])),
    malformed("keep-alive", Request(added=[(b"keep-alive", b"timeout=5")])),
    malformed("proxy-connection", Request(added=[(b"proxy-connection", b"keep-alive")])),
    malformed("te: gzip", Request({b"te": b"gzip"})),
    # The tool resets it, as gRPC's own servers do.
    answered("no te", Request(without=[b"te"]), 14, "the call was cut"),
    answered("expect: 100-continue", Request(added=[(b"expect", b"100-continue")]), 0),
    malformed("a content-length too large", Request(added=[(b"content-length", b"999")])),
    malformed("a content-length too small", Request(added=[(b"content-length", b"1")])),
    malformed("a content-length below nothing", Request(added=[(b"content-length", b"-1")])),
    malformed("two content-lengths", Request(added=[(b"content-length", b"11"), (b"content-length", b"12")])),
    malformed("70 kB of metadata", Request(added=[(f"x-{n}".encode(), b"a" * 7000) for n in range(10)])),
    Case("one value of 70 kB", Request(added=[(b"x-own", b"a" * 70_000)]), End.GONE),
    Case("one name of 70 kB", Request(added=[(b"x" * 70_000, b"a")]), End.GONE),
    malformed("150 fields", Request(added=[(f"x-{n}".encode(), b"a") for n in range(150)])),
    answered("an order to trace", Request(added=[(b"x-envoy-force-trace", b"1"), (b"x-b3-sampled", b"1")]), 0),
)
NOT_GRPC = "this port speaks gRPC: content-type must be application/grpc"
NOT_POST = "this port speaks gRPC: a call is a POST"
KINDS = (
    *(
        not_grpc(f"a content-type of {value or 'nothing'}", Request({b"content-type": value.encode()}), NOT_GRPC)
        for value in (
            "application/json",
            "application/grpcfoo",
            "application/grpc-web",
            "APPLICATION/GRPC",
            "text/html",
            "",
        )
    ),
    not_grpc("no content-type", Request(without=[b"content-type"]), NOT_GRPC),
    not_grpc("two content-types", Request(added=[(b"content-type", b"text/html")]), NOT_GRPC),
    answered("GET", Request({b":method": b"GET"}), 3, NOT_POST),
    answered("OPTIONS", Request({b":method": b"OPTIONS"}), 3, NOT_POST),
    answered("TRACE", Request({b":method": b"TRACE"}), 3, NOT_POST),
    answered("a method in small letters", Request({b":method": b"post"}), 3, NOT_POST),
    malformed("a method of two words", Request({b":method": b"POST x"})),
    malformed("CONNECT with a path", Request({b":method": b"CONNECT"})),
    answered("CONNECT", Request({b":method": b"CONNECT"}, without=[b":path", b":scheme"]), 3),
    malformed("a WebSocket", Request({b":method": b"CONNECT"}, first=[(b":protocol", b"websocket")])),
)
BELIEVED = "with a token of an issuer that the mesh believes"
TOKENS = (
    *(
        answered(f"a token that is {name}", Request({b"authorization": value}), 16, BELIEVED)
        for name, value in {
            "empty": b"Bearer ",
            "no token": b"Bearer x",
            "two dots": b"Bearer ..",
            "a password": b"Basic cm9vdDpyb290",
            "not signed": b"Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJkZXYiLCJzdWIiOiJyb290In0.",
            "of 50 kB": b"Bearer " + b"a" * 50_000,
        }.items()
    ),
    malformed("a token with NUL", Request({b"authorization": b"Bearer \0"})),
    answered("no token", Request(without=[b"authorization"]), 16, BELIEVED),
    answered("a token in a query", Request({b":path": PATH + b"?access_token=x"}, [b"authorization"]), 3, "no query"),
    answered("a bad token beside a good one", Request(added=[(b"authorization", b"Bearer x")]), 16, BELIEVED),
)
FORGED = 2000


def flood_of_tokens(connection: Connection, token: str) -> None:
    """Show a token that is not signed by its issuer, again and again, and read what comes of it."""
    forged = token[:-8] + "AAAAAAAA"
    for _ in range(FORGED):
        connection.answer(connection.request(good(forged), GOOD))


FLOOD = Case("a flood of forged tokens", flood_of_tokens, End.NOTHING)
TRAILERS = (
    answered("trailers that say who calls", Request(trailers=[(b"x-llmesh-subject", b"root")]), 0),
    answered("trailers with a status", Request(trailers=[(b"grpc-status", b"0")]), 0),
    malformed("trailers with a path", Request(trailers=[(b":path", b"/x")])),
    malformed("trailers in capitals", Request(trailers=[(b"X-Own", b"x")])),
    malformed("trailers with CR LF", Request(trailers=[(b"x-own", b"x\r\ny")])),
    Case("trailers of 70 kB", Request(trailers=[(b"x-own", b"a" * 70_000)]), End.GONE),
)
REQUESTS = (*MESSAGES, *TIMEOUTS, *PATHS, *FIELDS, *KINDS, *TOKENS, *TRAILERS)
