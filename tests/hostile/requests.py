"""Attacks by what a request says: its path, fields, message and trailers."""

from __future__ import annotations

import gzip

from tests.hostile.calls import GOOD, PATH, Case, End, Request
from tests.hostile.connection import grpc_frame

A = End.ANSWERED
SERVICE = b"acme.testing.v1.Echo"
GZIP = {b"grpc-encoding": b"gzip"}
BOMB = gzip.compress(bytes(8 << 20))


def _flagged(message: bytes, flag: int = 1) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4) + message


MESSAGES = (
    Case("no message", Request(body=b""), A),
    Case("a prefix cut short", Request(body=b"\0\0\0"), A),
    Case("a message shorter than its prefix says", Request(body=b"\0\0\0\0\x0aabc"), A),
    Case("4 GiB declared", Request(body=b"\0\xff\xff\xff\xffabc"), A),
    Case("more declared than a tool takes", Request(body=b"\0\0\x50\0\0abc"), A),
    Case("compressed by nothing that is named", Request(body=_flagged(gzip.compress(b""))), A),
    Case("an unknown flag", Request(body=_flagged(b"", 0xFF)), A),
    Case("two messages where one is due", Request(body=GOOD + GOOD), A),
    Case("bytes after the message", Request(body=GOOD + b"\0\0"), A),
    Case("no protobuf", Request(body=grpc_frame(b"\xff" * 64)), A),
    Case("text that is not UTF-8", Request(body=grpc_frame(b"\x0a\x02\xff\xfe")), A),
    Case("a field that says it is longer than all", Request(body=grpc_frame(b"\x0a\xff\xff\xff\xff\x0f")), A),
    Case("groups within groups", Request(body=grpc_frame(b"\x1b" * 10_000)), A),
    Case("gzip that is none", Request(GZIP, body=_flagged(b"no gzip")), A),
    Case("gzip cut short", Request(GZIP, body=_flagged(gzip.compress(b"\0" * 100)[:-9])), A),
    Case("a gzip bomb", Request(GZIP, body=_flagged(BOMB)), A),
    Case("an encoding nobody knows", Request({b"grpc-encoding": b"llzip"}, body=_flagged(b"x")), A),
    Case("an accepted encoding nobody knows", Request({b"grpc-accept-encoding": b"\x7f,,,;q=1e9"}), A),
)
TIMEOUTS = tuple(
    Case(f"a deadline of `{value.decode()}`", Request(added=[(b"grpc-timeout", value)]), A)
    for value in (b"abc", b"", b"1", b"5X", b"123456789S", b"-1S", b"1.5S", b"1S,1S", b"0x1S")
) + (
    Case("two deadlines", Request(added=[(b"grpc-timeout", b"5S"), (b"grpc-timeout", b"6S")]), A),
    Case("a deadline of nothing", Request(added=[(b"grpc-timeout", b"0n")]), A),
)
PATHS = tuple(
    Case(f"the path {name}", Request({b":path": path}), A)
    for name, path in {
        "in small letters": PATH.lower(),
        "in capitals": PATH.upper(),
        "with one capital more": b"/acme.testing.v1.echo/Unary",
        "with %2F": b"/" + SERVICE + b"%2FUnary",
        "with %2f": b"%2f" + SERVICE + b"/Unary",
        "percent-encoded": b"/" + SERVICE + b"/%55nary",
        "percent-encoded service": b"/acme%2Etesting.v1.Echo/Unary",
        "twice percent-encoded": b"/" + SERVICE + b"/%2555nary",
        "broken percent": b"/" + SERVICE + b"/Unary%",
        "with %00": PATH + b"%00",
        "with two slashes first": b"/" + PATH,
        "with two slashes": b"/" + SERVICE + b"//Unary",
        "with a slash last": PATH + b"/",
        "with /./": b"/./" + SERVICE + b"/Unary",
        "with /../": b"/x/../" + SERVICE + b"/Unary",
        "with ..": b"/" + SERVICE + b"/../" + SERVICE + b"/Unary",
        "with %2e%2e": b"/x/%2e%2e/" + SERVICE + b"/Unary",
        "with a backslash": b"/" + SERVICE + b"\\Unary",
        "with another tool's after": PATH + b"/acme.testing.v1.Echo/Erase",
        "with a parameter": PATH + b";x=1",
        "with a query": PATH + b"?token=secret",
        "that is a query": b"?",
        "with a fragment": PATH + b"#x",
        "absolute": b"http://localhost" + PATH,
        "absolute elsewhere": b"http://elsewhere:80" + PATH,
        "without a slash": PATH[1:],
        "of one slash": b"/",
        "of a star": b"*",
        "of a service alone": b"/" + SERVICE,
        "of a service and a slash": b"/" + SERVICE + b"/",
        "of 600 bytes": PATH + b"a" * 600,
        "of 40 kB": PATH + b"a" * 40_000,
        "with a space": b"/" + SERVICE + b"/Un ary",
        "with a space last": PATH + b" ",
        "with a tab": PATH + b"\t",
        "with a vertical tab": PATH + b"\x0b",
        "with CR LF": PATH + b"\r\nx-llmesh-subject: root",
        "with LF": PATH + b"\n",
        "with NUL": PATH + b"\0",
        "with DEL": PATH + b"\x7f",
        "with Latin letters": PATH + b"\xe9",
        "with a letter that looks alike": "/acme.testing.v1.Еcho/Unary".encode(),
        "of the gateway's programming": b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        "of the registry": b"/llmesh.api.registry.v1.RegistryService/Register",
    }.items()
) + (
    Case("no path", Request(without=[b":path"]), A),
    Case("an empty path", Request({b":path": b""}), A),
    Case("two paths", Request(first=[(b":path", PATH)]), A),
)
FIELDS = (
    Case("two methods", Request(first=[(b":method", b"POST")]), A),
    Case("two authorities", Request(first=[(b":authority", b"elsewhere")]), A),
    Case("two schemes", Request(first=[(b":scheme", b"https")]), A),
    Case("no method", Request(without=[b":method"]), A),
    Case("no scheme", Request(without=[b":scheme"]), A),
    Case("no authority", Request(without=[b":authority"]), A),
    Case("an empty authority", Request({b":authority": b""}), A),
    Case("an authority with a user", Request({b":authority": b"root@localhost"}), A),
    Case("an authority with CR LF", Request({b":authority": b"localhost\r\nx: y"}), A),
    Case("an authority that is a path", Request({b":authority": b"localhost/../admin"}), A),
    Case("a host beside the authority", Request(added=[(b"host", b"elsewhere")]), A),
    Case("a scheme of https", Request({b":scheme": b"https"}), A),
    Case("a scheme of javascript", Request({b":scheme": b"javascript"}), A),
    Case("a pseudo-field after others", Request(without=[b":path"], added=[(b":path", PATH)]), A),
    Case("an unknown pseudo-field", Request(first=[(b":llmesh", b"x")]), A),
    Case("the pseudo-field of answers", Request(first=[(b":status", b"200")]), A),
    Case("a name in capitals", Request(added=[(b"X-Own", b"x")]), A),
    Case("a name of nothing", Request(added=[(b"", b"x")]), A),
    Case("a name with a space", Request(added=[(b"x own", b"x")]), A),
    Case("a name with a colon", Request(added=[(b"x:own", b"x")]), A),
    Case("a name with NUL", Request(added=[(b"x\0own", b"x")]), A),
    Case("a value with CR LF", Request(added=[(b"x-own", b"x\r\nx-llmesh-subject: root")]), A),
    Case("a value with LF", Request(added=[(b"x-own", b"x\nroot")]), A),
    Case("a value with NUL", Request(added=[(b"x-own", b"x\0root")]), A),
    Case("a value with spaces around", Request(added=[(b"x-own", b" x ")]), A),
    Case("a binary value that is no base64", Request(added=[(b"x-own-bin", b"!!!!")]), A),
    Case("connection: close", Request(added=[(b"connection", b"close")]), A),
    Case("connection: upgrade", Request(added=[(b"connection", b"upgrade"), (b"upgrade", b"h2c")]), A),
    Case("transfer-encoding: chunked", Request(added=[(b"transfer-encoding", b"chunked")]), A),
    Case("keep-alive", Request(added=[(b"keep-alive", b"timeout=5")]), A),
    Case("proxy-connection", Request(added=[(b"proxy-connection", b"keep-alive")]), A),
    Case("te: gzip", Request({b"te": b"gzip"}), A),
    Case("no te", Request(without=[b"te"]), A),
    Case("expect: 100-continue", Request(added=[(b"expect", b"100-continue")]), A),
    Case("a content-length too large", Request(added=[(b"content-length", b"999")]), A),
    Case("a content-length too small", Request(added=[(b"content-length", b"1")]), A),
    Case("a content-length below nothing", Request(added=[(b"content-length", b"-1")]), A),
    Case("two content-lengths", Request(added=[(b"content-length", b"11"), (b"content-length", b"12")]), A),
    Case("70 kB of metadata", Request(added=[(f"x-{n}".encode(), b"a" * 7000) for n in range(10)]), A),
    Case("one value of 70 kB", Request(added=[(b"x-own", b"a" * 70_000)]), A),
    Case("one name of 70 kB", Request(added=[(b"x" * 70_000, b"a")]), A),
    Case("150 fields", Request(added=[(f"x-{n}".encode(), b"a") for n in range(150)]), A),
    Case("a token for Envoy's debugging", Request(added=[(b"x-envoy-force-trace", b"1"), (b"x-b3-sampled", b"1")]), A),
)
KINDS = tuple(
    Case(f"a content-type of {value.decode() or 'nothing'}", Request({b"content-type": value}), A)
    for value in (b"application/json", b"application/grpcfoo", b"application/grpc-web", b"APPLICATION/GRPC", b"", b"text/html")
) + (
    Case("no content-type", Request(without=[b"content-type"]), A),
    Case("two content-types", Request(added=[(b"content-type", b"text/html")]), A),
    Case("GET", Request({b":method": b"GET"}), A),
    Case("OPTIONS", Request({b":method": b"OPTIONS"}), A),
    Case("TRACE", Request({b":method": b"TRACE"}), A),
    Case("a method in small letters", Request({b":method": b"post"}), A),
    Case("a method of two words", Request({b":method": b"POST x"}), A),
    Case("CONNECT", Request({b":method": b"CONNECT"}), A),
    Case("CONNECT elsewhere", Request({b":method": b"CONNECT"}, without=[b":path", b":scheme"]), A),
    Case("a WebSocket", Request({b":method": b"CONNECT"}, first=[(b":protocol", b"websocket")]), A),
)
TOKENS = tuple(
    Case(f"a token that is {name}", Request({b"authorization": value}), A)
    for name, value in {
        "empty": b"Bearer ",
        "no token": b"Bearer x",
        "two dots": b"Bearer ..",
        "basic": b"Basic cm9vdDpyb290",
        "not signed": b"Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJkZXYiLCJzdWIiOiJyb290In0.",
        "of 50 kB": b"Bearer " + b"a" * 50_000,
        "NUL": b"Bearer \0",
    }.items()
) + (
    Case("no token", Request(without=[b"authorization"]), A),
    Case("a token in a query", Request({b":path": PATH + b"?access_token=x"}, without=[b"authorization"]), A),
    Case("a bad token beside a good one", Request(added=[(b"authorization", b"Bearer x")]), A),
    Case("a bad token before a good one", Request(first=[(b"authorization", b"Bearer x")]), A),
)
TRAILERS = (
    Case("trailers that say who calls", Request(trailers=[(b"x-llmesh-subject", b"root")]), A),
    Case("trailers with a path", Request(trailers=[(b":path", b"/x")]), A),
    Case("trailers with a status", Request(trailers=[(b"grpc-status", b"0")]), A),
    Case("trailers in capitals", Request(trailers=[(b"X-Own", b"x")]), A),
    Case("trailers with CR LF", Request(trailers=[(b"x-own", b"x\r\ny")]), A),
    Case("trailers of 70 kB", Request(trailers=[(b"x-own", b"a" * 70_000)]), A),
)
REQUESTS = (*MESSAGES, *TIMEOUTS, *PATHS, *FIELDS, *KINDS, *TOKENS, *TRAILERS)
